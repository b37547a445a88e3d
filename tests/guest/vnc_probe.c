/*
 * A VNC client for tests of whole machines:
 *
 *     vnc_probe HOST PORT PASSWORD [ACTION...]
 *
 * --shot FILE.ppm   the picture, when it is whole
 * --key KEYSYM      presses and releases: a character, ret, esc, tab, up..., or a number (0xff0d)
 * --type TEXT       characters; a new line is the return key
 * --move X Y        the pointer
 * --click BUTTON    1 left, 2 middle, 3 right
 * --size W H        asks for a picture of that size
 * --wait MS         handles what comes for that long
 *
 * Actions happen in their order. Exit status 1: it cannot connect, or an action failed.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rfb/rfbclient.h>

static const char *password;
static int x, y;

static char *get_password(rfbClient *client)
{
    return strdup(password);
}

static void say_nothing(const char *format, ...)
{
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Handles what comes for that long. */
static bool handle(rfbClient *client, int ms)
{
    int64_t end = now_ms() + ms;
    do {
        /* The library waits for the socket, though a message may be read already. */
        int status = client->buffered ? 1 : WaitForMessage(client, 10000);
        if (status < 0 || (status && !HandleRFBServerMessage(client)))
            return false;
    } while (now_ms() < end);
    return true;
}

static bool shot(rfbClient *client, char **arguments)
{
    /* All of it, not only what changes from now on. */
    if (!SendFramebufferUpdateRequest(client, 0, 0, client->width, client->height, FALSE) ||
        !handle(client, 500))
        return false;
    FILE *file = fopen(arguments[0], "wb");
    if (!file)
        return false;
    fprintf(file, "P6\n%d %d\n255\n", client->width, client->height);
    for (size_t i = 0; i < (size_t)client->width * (size_t)client->height; i++) {
        const uint8_t *pixel = client->frameBuffer + i * 4;
        const uint8_t rgb[] = {pixel[2], pixel[1], pixel[0]};
        fwrite(rgb, 1, sizeof(rgb), file);
    }
    return !fclose(file);
}

static bool press(rfbClient *client, uint32_t keysym)
{
    return SendKeyEvent(client, keysym, TRUE) && handle(client, 20) &&
           SendKeyEvent(client, keysym, FALSE) && handle(client, 20);
}

static bool press_character(rfbClient *client, unsigned char character)
{
    bool shift =
        character != ' ' && strchr("~!@#$%^&*()_+{}|:\"<>?ABCDEFGHIJKLMNOPQRSTUVWXYZ", character);
    if (character == '\n')
        return press(client, XK_Return);
    return (!shift || SendKeyEvent(client, XK_Shift_L, TRUE)) && press(client, character) &&
           (!shift || SendKeyEvent(client, XK_Shift_L, FALSE));
}

static bool key(rfbClient *client, char **arguments)
{
    static const struct {
        const char *name;
        uint32_t keysym;
    } names[] = {{"ret", XK_Return},  {"esc", XK_Escape},    {"tab", XK_Tab},
                 {"up", XK_Up},       {"down", XK_Down},     {"left", XK_Left},
                 {"right", XK_Right}, {"spc", XK_space},     {"backspace", XK_BackSpace},
                 {"home", XK_Home},   {"end", XK_End},       {"delete", XK_Delete},
                 {"f1", XK_F1},       {"ctrl", XK_Control_L}};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(names[i].name, arguments[0]))
            return press(client, names[i].keysym);
    if (arguments[0][0] && !arguments[0][1])
        return press_character(client, (unsigned char)arguments[0][0]);
    uint32_t number = (uint32_t)strtoul(arguments[0], NULL, 0);
    return number && press(client, number);
}

static bool type(rfbClient *client, char **arguments)
{
    for (const char *at = arguments[0]; *at; at++)
        if (!press_character(client, (unsigned char)*at))
            return false;
    return true;
}

static bool move(rfbClient *client, char **arguments)
{
    x = atoi(arguments[0]);
    y = atoi(arguments[1]);
    return SendPointerEvent(client, x, y, 0) && handle(client, 20);
}

static bool click(rfbClient *client, char **arguments)
{
    int button = atoi(arguments[0]);
    return button >= 1 && button <= 8 && SendPointerEvent(client, x, y, 1 << (button - 1)) &&
           handle(client, 20) && SendPointerEvent(client, x, y, 0) && handle(client, 20);
}

static bool size(rfbClient *client, char **arguments)
{
    return SendExtDesktopSize(client, (uint16_t)atoi(arguments[0]), (uint16_t)atoi(arguments[1])) &&
           handle(client, 20);
}

static bool wait_ms(rfbClient *client, char **arguments)
{
    return handle(client, atoi(arguments[0]));
}

static const struct {
    const char *name;
    int count;
    bool (*act)(rfbClient *client, char **arguments);
} actions[] = {{"--shot", 1, shot},   {"--key", 1, key},     {"--type", 1, type},
               {"--move", 2, move},   {"--click", 1, click}, {"--size", 2, size},
               {"--wait", 1, wait_ms}};

static bool act(rfbClient *client, int argc, char **argv)
{
    for (int i = 0; i < argc;) {
        size_t n = 0;
        while (n < sizeof(actions) / sizeof(actions[0]) && strcmp(actions[n].name, argv[i]))
            n++;
        if (n == sizeof(actions) / sizeof(actions[0]) || argc - i - 1 < actions[n].count) {
            fprintf(stderr, "vnc_probe: '%s' is no action, or lacks something\n", argv[i]);
            return false;
        }
        if (!actions[n].act(client, argv + i + 1)) {
            fprintf(stderr, "vnc_probe: %s failed\n", argv[i]);
            return false;
        }
        i += 1 + actions[n].count;
    }
    return handle(client, 50);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: vnc_probe HOST PORT PASSWORD [ACTION...]\n");
        return 1;
    }
    rfbClientLog = rfbClientErr = say_nothing;
    rfbClient *client = rfbGetClient(8, 3, 4);
    client->format.redShift = 16;
    client->format.greenShift = 8;
    client->format.blueShift = 0;
    client->appData.encodingsString = "zrle hextile copyrect raw"; /* without loss */
    client->appData.enableJPEG = FALSE;
    client->canHandleNewFBSize = TRUE;
    client->GetPassword = get_password;
    password = argv[3];
    free(client->serverHost);
    client->serverHost = strdup(argv[1]);
    client->serverPort = atoi(argv[2]);
    if (!rfbInitClient(client, NULL, NULL)) { /* which has freed it */
        fprintf(stderr, "vnc_probe: no picture from %s:%s\n", argv[1], argv[2]);
        return 1;
    }
    bool good = handle(client, 200) && act(client, argc - 4, argv + 4);
    free(client->frameBuffer);
    rfbClientCleanup(client);
    return good ? 0 : 1;
}
