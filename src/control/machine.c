/* A machine's life as control commands and events. */
#include <json-c/json.h>

#include "base/bits.h"
#include "control/internal.h"
#include "hartvisor/machine.h"

static struct machine *machine_of(void *opaque)
{
    struct control *control = opaque;
    return control->machine;
}

static bool run_status(void *opaque, const struct control_value *values,
                       struct json_object **result, struct error *err)
{
    static const char *const names[] = {
        [MACHINE_PAUSED] = "paused",
        [MACHINE_RUNNING] = "running",
        [MACHINE_ENDED] = "shutdown",
    };
    enum machine_state state = machine_get_state(machine_of(opaque));
    *result = json_object_new_object();
    json_object_object_add(*result, "status", json_object_new_string(names[state]));
    json_object_object_add(*result, "running", json_object_new_boolean(state == MACHINE_RUNNING));
    return true;
}

static bool run_stop(void *opaque, const struct control_value *values, struct json_object **result,
                     struct error *err)
{
    machine_pause(machine_of(opaque));
    return true;
}

static bool run_cont(void *opaque, const struct control_value *values, struct json_object **result,
                     struct error *err)
{
    machine_resume(machine_of(opaque));
    return true;
}

static bool run_reset(void *opaque, const struct control_value *values, struct json_object **result,
                      struct error *err)
{
    machine_reset(machine_of(opaque));
    return true;
}

static bool run_powerdown(void *opaque, const struct control_value *values,
                          struct json_object **result, struct error *err)
{
    if (!machine_powerdown(machine_of(opaque)))
        return error_set(err, "this guest has no power button: shut it down from inside, or end "
                              "the machine with 'quit'");
    return true;
}

static bool run_quit(void *opaque, const struct control_value *values, struct json_object **result,
                     struct error *err)
{
    struct control *control = opaque;
    control->quit = true;
    machine_quit(control->machine, 0);
    return true;
}

static const struct control_command machine_commands[] = {
    {
        .name = "query-status",
        .alias = "status",
        .help = "say whether the machine runs",
        .run = run_status,
    },
    {
        .name = "stop",
        .help = "pause the machine",
        .run = run_stop,
    },
    {
        .name = "cont",
        .help = "continue a paused machine",
        .run = run_cont,
    },
    {
        .name = "system_reset",
        .alias = "reset",
        .help = "reset the machine, as a reset button does",
        .run = run_reset,
    },
    {
        .name = "system_powerdown",
        .alias = "powerdown",
        .help = "press the power button, for a shutdown by the guest",
        .run = run_powerdown,
    },
    {
        .name = "quit",
        .alias = "q",
        .help = "end the machine at once; its disks are flushed",
        .run = run_quit,
    },
};

/* Who ended the machine, in the words that QMP clients know. */
static const char *shutdown_reason(const struct control *control,
                                   const struct machine_event_info *info)
{
    if (info->by_guest)
        return "guest-shutdown";
    if (control->quit)
        return "host-qmp-quit";
    if (info->status == MACHINE_STATUS_FAILURE)
        return "host-error";
    return info->status > 128 ? "host-signal" : "host-ui";
}

static void on_event(void *opaque, const struct machine_event_info *info)
{
    static const char *const names[] = {
        [MACHINE_EVENT_STOP] = "STOP",         [MACHINE_EVENT_RESUME] = "RESUME",
        [MACHINE_EVENT_RESET] = "RESET",       [MACHINE_EVENT_POWERDOWN] = "POWERDOWN",
        [MACHINE_EVENT_SHUTDOWN] = "SHUTDOWN",
    };
    struct control *control = opaque;
    const char *reason = NULL;
    if (info->event == MACHINE_EVENT_SHUTDOWN)
        reason = shutdown_reason(control, info);
    else if (info->event == MACHINE_EVENT_RESET)
        reason = info->by_guest ? "guest-reset" : "host-qmp-system-reset";

    struct json_object *data = NULL;
    if (reason) {
        data = json_object_new_object();
        json_object_object_add(data, "guest", json_object_new_boolean(info->by_guest));
        json_object_object_add(data, "reason", json_object_new_string(reason));
    }
    control_emit(control, names[info->event], data);
}

void control_add_machine(struct control *control, struct machine *machine)
{
    control->machine = machine;
    control_add_commands(control, machine_commands, ARRAY_SIZE(machine_commands), control);
    machine_add_listener(machine, on_event, control);
}
