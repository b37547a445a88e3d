/* Computations whose results are the same on every machine: `compute SEED` prints one line each. */
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void show(const char *name, uint64_t value)
{
    printf("%s %016" PRIx64 "\n", name, value);
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

static void integers(void)
{
    uint64_t hash = 0;
    for (int i = 0; i < 200000; i++) {
        uint64_t a = next(), b = next() >> (a & 63);
        int64_t sa = (int64_t)a, sb = (int64_t)b;
        hash = mix(hash, a * b + (a >> (b & 63)) - (a << (b & 31)));
        hash = mix(hash, (uint64_t)((unsigned __int128)a * b >> 64));
        if (b) {
            hash = mix(hash, a / b ^ a % b);
            hash = mix(hash, (uint32_t)a % ((uint32_t)b | 1));
        }
        if (sb > 0)
            hash = mix(hash, (uint64_t)(sa / sb) ^ (uint64_t)(sa % sb));
        hash = mix(hash, (uint64_t)((int32_t)a >> (b & 31)) + (uint16_t)a + (uint64_t)(int8_t)b);
        hash =
            mix(hash, (uint64_t)__builtin_popcountll(a) + (uint64_t)__builtin_ctzll(b | 1u << 31));
        hash = mix(hash, __builtin_bswap64(a) ^ (a > b ? a : b) ^ (sa < sb ? a : ~b));
    }
    show("integers", hash);
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void sorting(void)
{
    enum { COUNT = 50000 };
    uint64_t *values = malloc(COUNT * sizeof(*values)), hash = 0;
    for (int i = 0; i < COUNT; i++)
        values[i] = next();
    qsort(values, COUNT, sizeof(*values), compare);
    for (int i = 0; i < COUNT; i++)
        hash = mix(hash, values[i]);
    free(values);
    show("sorting", hash);
}

/* Elimination in doubles, and sums in floats: every operation is rounded as IEEE 754 says. */
static void floating(void)
{
    enum { SIZE = 60 };
    static double matrix[SIZE][SIZE];
    double determinant = 1;
    float sum = 0;

    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++)
            matrix[i][j] = (double)(int64_t)next() / 9007199254740992.0 + (i == j ? 2048 : 0);
    for (int k = 0; k < SIZE; k++) {
        determinant *= matrix[k][k] / 2048;
        for (int i = k + 1; i < SIZE; i++) {
            double factor = matrix[i][k] / matrix[k][k];
            for (int j = k; j < SIZE; j++)
                matrix[i][j] -= factor * matrix[k][j];
        }
        sum += (float)sqrt(fabs(matrix[k][SIZE - 1]));
        sum += (float)(int32_t)next() / 65536;
        determinant += (double)(int32_t)sum + floor(matrix[k][k]) + (double)(int64_t)(sum * 3);
    }
    printf("floating %a %a\n", determinant, (double)sum);
}

static void memory(void)
{
    enum { SIZE = 1 << 16 };
    unsigned char *area = malloc(2 * SIZE);
    uint64_t hash = 0;

    for (int i = 0; i < 2 * SIZE; i++)
        area[i] = (unsigned char)next();
    for (int i = 0; i < 300; i++) {
        unsigned from = next() % SIZE, to = next() % SIZE, size = next() % SIZE;
        memmove(area + to, area + from, size);
        memset(area + next() % SIZE, i, 99);
        hash = mix(hash, (uint64_t)(memcmp(area + from, area + to, size) > 0));
        unsigned char *found = memchr(area + from, (int)(next() & 0xff), SIZE);
        hash = mix(hash, found ? (uint64_t)(found - area) : 0);
        uint64_t word;
        memcpy(&word, area + (from | 1), sizeof(word));
        hash = mix(hash, word);
    }
    for (int i = 0; i < 2 * SIZE; i++)
        hash = mix(hash, area[i]);
    free(area);
    show("memory", hash);
}

struct node {
    struct node *left, *right;
    uint64_t key;
};

static struct node *insert(struct node *node, uint64_t key)
{
    if (!node) {
        node = calloc(1, sizeof(*node));
        node->key = key;
    } else if (key < node->key) {
        node->left = insert(node->left, key);
    } else {
        node->right = insert(node->right, key);
    }
    return node;
}

static uint64_t walk(struct node *node, unsigned depth, uint64_t hash)
{
    if (!node)
        return hash;
    hash = walk(node->left, depth + 1, hash);
    hash = mix(hash, node->key + depth);
    hash = walk(node->right, depth + 1, hash);
    free(node);
    return hash;
}

static void trees(void)
{
    struct node *root = NULL;
    for (int i = 0; i < 20000; i++)
        root = insert(root, next());
    show("trees", walk(root, 0, 0));
}

static void texts(void)
{
    char text[200];
    uint64_t hash = 0;
    for (int i = 0; i < 5000; i++) {
        uint64_t a = next();
        int length = snprintf(text, sizeof(text), "%" PRIu64 " %d %.17g %s", a, (int)a,
                              (double)(int64_t)a / 1024, a & 1 ? "odd" : "even");
        hash = mix(hash, strtoull(text, NULL, 10) ^ a);
        for (int j = 0; j < length; j++)
            hash = mix(hash, (unsigned char)text[j]);
        double parsed;
        sscanf(text, "%*u %*d %lf", &parsed);
        hash = mix(hash, (uint64_t)(int64_t)parsed);
    }
    show("texts", hash);
}

int main(int argc, char **argv)
{
    state = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) * 0x9e3779b97f4a7c15u + 1;
    integers();
    sorting();
    floating();
    memory();
    trees();
    texts();
    return 0;
}
