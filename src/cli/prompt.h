/*
 * The keys behind Ctrl-A on a terminal, and the control prompt that one of them opens.
 *
 * The prompt takes the terminal over from the guest, which goes on meanwhile, and runs the commands
 * of the control socket by their names. All on the loop's thread.
 */
#pragma once

struct control;
struct machine;
struct prompt;

/* Takes the escape keys of the machine's terminal; harmless if it has none. */
struct prompt *prompt_create(struct machine *machine, struct control *control);
void prompt_destroy(struct prompt *prompt); /* accepts NULL; before the machine */
