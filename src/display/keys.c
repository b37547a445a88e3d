/* Keys by their names and by X11's keysyms, on a US keyboard. */
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>

#include "display/display.h"

/* Linux's code and name; QEMU's name; the keysym without and with shift (0: none, or the same). */
static const struct key {
    uint16_t code;
    const char *linux_name, *qemu_name;
    uint32_t keysym, shifted;
} keys[] = {
#define K(name, qemu, keysym, shifted) {KEY_##name, "KEY_" #name, qemu, keysym, shifted}
    K(A, "a", 'a', 'A'),
    K(B, "b", 'b', 'B'),
    K(C, "c", 'c', 'C'),
    K(D, "d", 'd', 'D'),
    K(E, "e", 'e', 'E'),
    K(F, "f", 'f', 'F'),
    K(G, "g", 'g', 'G'),
    K(H, "h", 'h', 'H'),
    K(I, "i", 'i', 'I'),
    K(J, "j", 'j', 'J'),
    K(K, "k", 'k', 'K'),
    K(L, "l", 'l', 'L'),
    K(M, "m", 'm', 'M'),
    K(N, "n", 'n', 'N'),
    K(O, "o", 'o', 'O'),
    K(P, "p", 'p', 'P'),
    K(Q, "q", 'q', 'Q'),
    K(R, "r", 'r', 'R'),
    K(S, "s", 's', 'S'),
    K(T, "t", 't', 'T'),
    K(U, "u", 'u', 'U'),
    K(V, "v", 'v', 'V'),
    K(W, "w", 'w', 'W'),
    K(X, "x", 'x', 'X'),
    K(Y, "y", 'y', 'Y'),
    K(Z, "z", 'z', 'Z'),
    K(1, "1", '1', '!'),
    K(2, "2", '2', '@'),
    K(3, "3", '3', '#'),
    K(4, "4", '4', '$'),
    K(5, "5", '5', '%'),
    K(6, "6", '6', '^'),
    K(7, "7", '7', '&'),
    K(8, "8", '8', '*'),
    K(9, "9", '9', '('),
    K(0, "0", '0', ')'),
    K(MINUS, "minus", '-', '_'),
    K(EQUAL, "equal", '=', '+'),
    K(LEFTBRACE, "bracket_left", '[', '{'),
    K(RIGHTBRACE, "bracket_right", ']', '}'),
    K(SEMICOLON, "semicolon", ';', ':'),
    K(APOSTROPHE, "apostrophe", '\'', '"'),
    K(GRAVE, "grave_accent", '`', '~'),
    K(BACKSLASH, "backslash", '\\', '|'),
    K(COMMA, "comma", ',', '<'),
    K(DOT, "dot", '.', '>'),
    K(SLASH, "slash", '/', '?'),
    K(SPACE, "spc", ' ', 0),
    K(102ND, "less", 0, 0),
    K(ESC, "esc", 0xff1b, 0),
    K(BACKSPACE, "backspace", 0xff08, 0),
    K(TAB, "tab", 0xff09, 0xfe20),
    K(ENTER, "ret", 0xff0d, 0),
    K(LEFTCTRL, "ctrl", 0xffe3, 0),
    K(RIGHTCTRL, "ctrl_r", 0xffe4, 0),
    K(LEFTSHIFT, "shift", 0xffe1, 0),
    K(RIGHTSHIFT, "shift_r", 0xffe2, 0),
    K(LEFTALT, "alt", 0xffe9, 0xffe7),
    K(RIGHTALT, "alt_r", 0xffea, 0xffe8),
    K(RIGHTALT, "altgr", 0xfe03, 0),
    K(LEFTMETA, "meta_l", 0xffeb, 0),
    K(RIGHTMETA, "meta_r", 0xffec, 0),
    K(COMPOSE, "compose", 0xff67, 0),
    K(CAPSLOCK, "caps_lock", 0xffe5, 0),
    K(NUMLOCK, "num_lock", 0xff7f, 0),
    K(SCROLLLOCK, "scroll_lock", 0xff14, 0),
    K(SYSRQ, "print", 0xff61, 0xff15),
    K(PAUSE, "pause", 0xff13, 0xff6b),
    K(F1, "f1", 0xffbe, 0),
    K(F2, "f2", 0xffbf, 0),
    K(F3, "f3", 0xffc0, 0),
    K(F4, "f4", 0xffc1, 0),
    K(F5, "f5", 0xffc2, 0),
    K(F6, "f6", 0xffc3, 0),
    K(F7, "f7", 0xffc4, 0),
    K(F8, "f8", 0xffc5, 0),
    K(F9, "f9", 0xffc6, 0),
    K(F10, "f10", 0xffc7, 0),
    K(F11, "f11", 0xffc8, 0),
    K(F12, "f12", 0xffc9, 0),
    K(HOME, "home", 0xff50, 0),
    K(END, "end", 0xff57, 0),
    K(PAGEUP, "pgup", 0xff55, 0),
    K(PAGEDOWN, "pgdn", 0xff56, 0),
    K(INSERT, "insert", 0xff63, 0),
    K(DELETE, "delete", 0xffff, 0),
    K(UP, "up", 0xff52, 0),
    K(DOWN, "down", 0xff54, 0),
    K(LEFT, "left", 0xff51, 0),
    K(RIGHT, "right", 0xff53, 0),
    K(KP0, "kp_0", 0xffb0, 0xff9e),
    K(KP1, "kp_1", 0xffb1, 0xff9c),
    K(KP2, "kp_2", 0xffb2, 0xff99),
    K(KP3, "kp_3", 0xffb3, 0xff9b),
    K(KP4, "kp_4", 0xffb4, 0xff96),
    K(KP5, "kp_5", 0xffb5, 0xff9d),
    K(KP6, "kp_6", 0xffb6, 0xff98),
    K(KP7, "kp_7", 0xffb7, 0xff95),
    K(KP8, "kp_8", 0xffb8, 0xff97),
    K(KP9, "kp_9", 0xffb9, 0xff9a),
    K(KPDOT, "kp_decimal", 0xffae, 0xff9f),
    K(KPENTER, "kp_enter", 0xff8d, 0),
    K(KPPLUS, "kp_add", 0xffab, 0),
    K(KPMINUS, "kp_subtract", 0xffad, 0),
    K(KPASTERISK, "kp_multiply", 0xffaa, 0),
    K(KPSLASH, "kp_divide", 0xffaf, 0),
    K(KPEQUAL, "kp_equals", 0xffbd, 0),
    K(MENU, "menu", 0, 0),
    K(MUTE, "audiomute", 0x1008ff12, 0),
    K(VOLUMEDOWN, "volumedown", 0x1008ff11, 0),
    K(VOLUMEUP, "volumeup", 0x1008ff13, 0),
    K(PLAYPAUSE, "audioplay", 0x1008ff14, 0),
    K(POWER, "power", 0x1008ff2a, 0),
    K(SLEEP, "sleep", 0x1008ff2f, 0),
    K(WAKEUP, "wake", 0x1008ff2b, 0),
#undef K
};

uint16_t key_by_name(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (!strcmp(keys[i].qemu_name, name) || !strcmp(keys[i].linux_name, name))
            return keys[i].code;
    return 0;
}

uint16_t key_by_keysym(uint32_t keysym, bool *shift)
{
    *shift = false;
    if (!keysym)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (keys[i].keysym == keysym || keys[i].shifted == keysym) {
            *shift = keys[i].keysym != keysym;
            return keys[i].code;
        }
    }
    return 0;
}
