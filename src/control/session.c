/* One connection's protocol: what is answered to a message, and when commands are allowed. */
#include <json-c/json.h>
#include <string.h>

#include "control/internal.h"
#include "control/message.h"

static const char not_found[] = "CommandNotFound";
static const char generic[] = "GenericError";

static struct json_object *error_answer(const char *class, const char *description)
{
    struct json_object *error = json_object_new_object(), *answer = json_object_new_object();
    json_object_object_add(error, "class", json_object_new_string(class));
    json_object_object_add(error, "desc", json_object_new_string(description));
    json_object_object_add(answer, "error", error);
    return answer;
}

struct json_object *session_complain(const struct error *err)
{
    return error_answer(generic, err->message);
}

struct json_object *session_greeting(void)
{
    struct json_object *greeting = json_object_new_object(), *body = json_object_new_object();
    json_object_object_add(body, "version", control_version());
    json_object_object_add(body, "capabilities", json_object_new_array());
    json_object_object_add(greeting, "QMP", body);
    return greeting;
}

/* The members that a request may have; false, with err set, if it is no request. */
static bool check_request(struct json_object *request, struct error *err)
{
    if (!json_object_is_type(request, json_type_object))
        return error_set(err, "a request is a JSON object: {\"execute\": \"query-commands\"}");
    json_object_object_foreach(request, key, value)
    {
        if (!strcmp(key, "id"))
            continue;
        if (!strcmp(key, "execute")) {
            if (!message_text(value))
                return error_set(err, "'execute' must be a command's name");
        } else if (!strcmp(key, "arguments")) {
            if (!json_object_is_type(value, json_type_object))
                return error_set(err, "'arguments' must be an object");
        } else {
            return error_set(err, "a request has no member '%s', only execute, arguments and id",
                             key);
        }
    }
    if (!json_object_object_get(request, "execute"))
        return error_set(err, "the request has no 'execute' with a command's name");
    return true;
}

static struct json_object *execute(struct control_session *session, const char *name,
                                   struct json_object *arguments)
{
    bool negotiation = strcmp(name, "qmp_capabilities") == 0;
    struct error err;
    if (negotiation == session->negotiated) {
        error_set(&err,
                  negotiation ? "'%s' was answered already; a connection has one negotiation"
                              : "'%s' before 'qmp_capabilities', which opens a connection",
                  name);
        return error_answer(not_found, err.message);
    }
    const struct control_entry *entry = control_find(session->control, name);
    if (!entry) {
        error_set(&err, "there is no command '%s' (query-commands lists them)", name);
        return error_answer(not_found, err.message);
    }
    struct json_object *result;
    if (!control_run(entry, arguments, &result, &err))
        return error_answer(generic, err.message);
    if (negotiation)
        session->negotiated = true;
    struct json_object *answer = json_object_new_object();
    json_object_object_add(answer, "return", result);
    return answer;
}

struct json_object *session_answer(struct control_session *session, struct json_object *request)
{
    struct error err;
    struct json_object *answer, *id;
    if (check_request(request, &err))
        answer = execute(session, message_text(json_object_object_get(request, "execute")),
                         json_object_object_get(request, "arguments"));
    else
        answer = session_complain(&err);
    /* Also with errors, so that a client finds the request that one belongs to. */
    if (json_object_is_type(request, json_type_object) &&
        json_object_object_get_ex(request, "id", &id))
        json_object_object_add(answer, "id", json_object_get(id));
    return answer;
}
