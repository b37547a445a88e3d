/* recorded_host FILE FOLDER: makes a recorded machine, for tests of the command. */
#include "../unit/recorded_host.h"

int main(int count, char **words)
{
    if (count != 3) {
        fprintf(stderr, "usage: %s FILE FOLDER\n", words[0]);
        return 1;
    }
    recorded_host_make(words[1], words[2]);
    return 0;
}
