/* The control socket: its parser, its protocol, its server, and a machine behind it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/unix_socket.h"
#include "control/internal.h"
#include "control/message.h"
#include "control/text.h"
#include "machine/machine.h"

/* --- The parser --- */

#define PARSER_MAX 200

/* Feeds bytes in pieces of `piece`; gives what came out as text: messages, and ! for errors. */
static const char *parse_pieces(const char *bytes, size_t size, size_t piece)
{
    static char out[4096];
    struct message_parser parser;
    message_parser_init(&parser, PARSER_MAX);
    out[0] = '\0';
    for (size_t from = 0; from < size; from += piece) {
        const char *position = bytes + from;
        size_t left = size - from < piece ? size - from : piece;
        for (;;) {
            struct json_object *message = NULL;
            struct error err;
            enum message_status status =
                message_parser_next(&parser, &position, &left, &message, &err);
            if (status == MESSAGE_INCOMPLETE)
                break;
            if (status == MESSAGE_INVALID)
                strcat(out, "!");
            else
                strcat(out, json_object_to_json_string_ext(message, JSON_C_TO_STRING_PLAIN));
            strcat(out, ";");
            json_object_put(message);
        }
        assert_int_equal(left, 0);
    }
    message_parser_finish(&parser);
    return out;
}

/* The same comes out whatever the pieces are. */
static void parses_to(const char *bytes, size_t size, const char *expected)
{
    for (size_t piece = 1; piece <= size; piece++)
        assert_string_equal(parse_pieces(bytes, size, piece), expected);
}

#define PARSES_TO(text, expected) parses_to(text, sizeof(text) - 1, expected)

static void test_messages(void **state)
{
    PARSES_TO("{\"a\":1}\n", "{\"a\":1};");
    PARSES_TO("{\"a\":1}{\"b\":2} {\"c\":[1,{}]}\r\n\r\n{}",
              "{\"a\":1};{\"b\":2};{\"c\":[1,{}]};{};");
    PARSES_TO("\n{\n  \"a\":\n\t[1,\n2]\n}\n", "{\"a\":[1,2]};");
    PARSES_TO("{\"a\":\"}{\\\"\\u0041\"}", "{\"a\":\"}{\\\"A\"};");
    PARSES_TO("{\"a\":\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"}",
              "{\"a\":\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"};");
    PARSES_TO("12\ntrue\n\"x\"\n", "12;true;\"x\";");
    PARSES_TO("null\n{}", "null;{};");
    PARSES_TO("", "");
    PARSES_TO("{\"a\":", "");
}

static void test_invalid_messages(void **state)
{
    /* The rest of the line is lost, the next one is read. */
    PARSES_TO("garbage {\"a\":1}\n{\"b\":2}\n", "!;{\"b\":2};");
    PARSES_TO("{\"a\" 1}\n{}", "!;{};");
    PARSES_TO("{\"a\":01}\n{}", "!;{};");
    PARSES_TO("{\"a\":1,}\n{}", "!;{};");
    PARSES_TO("{\"a\":tru}\n{}", "!;{};");
    PARSES_TO("]\n{}", "!;{};");
    PARSES_TO("{]\n{}", "!;{};");
    /* UTF-8: a stray continuation, overlong, a surrogate, too large, cut off, NUL. */
    PARSES_TO("{\"a\":\"\x80\"}\n{}", "!;{};");
    PARSES_TO("{\"a\":\"\xc0\xaf\"}\n{}", "!;{};");
    PARSES_TO("{\"a\":\"\xe0\x80\xaf\"}\n{}", "!;{};");
    PARSES_TO("{\"a\":\"\xed\xa0\x80\"}\n{}", "!;{};");
    PARSES_TO("{\"a\":\"\xf4\x90\x80\x80\"}\n{}", "!;{};");
    PARSES_TO("{\"a\":\"\xf8\x88\x80\x80\x80\"}\n{}", "!;{};");
    PARSES_TO("{\"a\":\"\xc3\"}\n{}", "!;{};");
    PARSES_TO("{\"a\":\0}\n{}", "!;{};");
    PARSES_TO("\xff{}\n{}", "!;{};");
}

static void test_message_limits(void **state)
{
    char text[1000];
    /* Nesting. */
    for (size_t depth = 1; depth < 100; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        strcpy(text + 2 * depth, "\n{}");
        const char *out = parse_pieces(text, strlen(text), 7);
        if (depth < MESSAGE_DEPTH_MAX - 1)
            assert_int_equal(out[0], '[');
        else if (depth > MESSAGE_DEPTH_MAX)
            assert_string_equal(out, "!;{};");
    }
    /* Size: what fits in all but the closing brace, and one byte less. */
    for (size_t length = PARSER_MAX - 10; length < PARSER_MAX + 300; length += 5) {
        memset(text, 'x', sizeof(text));
        memcpy(text, "{\"a\":\"", 6);
        strcpy(text + length - 2, "\"}\n{}");
        const char *out = parse_pieces(text, strlen(text), 33);
        if (length > PARSER_MAX)
            assert_string_equal(out, "!;{};");
        else
            assert_int_equal(out[0], '{');
    }
    /* White space between messages is no message. */
    memset(text, ' ', sizeof(text));
    memcpy(text + sizeof(text) - 2, "{}", 2);
    assert_string_equal(parse_pieces(text, sizeof(text), 50), "{};");
}

/* --- A table of commands for the tests --- */

static bool run_echo(void *opaque, const struct control_value *values, struct json_object **result,
                     struct error *err)
{
    *result = json_object_new_object();
    json_object_object_add(*result, "text", json_object_new_string(values[0].string));
    if (values[1].present)
        json_object_object_add(*result, "number", json_object_new_int64(values[1].integer));
    if (values[2].present)
        json_object_object_add(*result, "flag", json_object_new_boolean(values[2].boolean));
    if (values[3].present)
        json_object_object_add(*result, "list", json_object_get(values[3].list));
    return true;
}

static bool run_fail(void *opaque, const struct control_value *values, struct json_object **result,
                     struct error *err)
{
    return error_set(err, "it cannot work");
}

static bool run_count(void *opaque, const struct control_value *values, struct json_object **result,
                      struct error *err)
{
    ++*(unsigned *)opaque;
    return true;
}

/* An answer that is larger than what sockets buffer. */
static bool run_large(void *opaque, const struct control_value *values, struct json_object **result,
                      struct error *err)
{
    size_t size = (size_t)values[0].integer;
    char *text = xmalloc(size + 1);
    memset(text, 'x', size);
    text[size] = '\0';
    *result = json_object_new_string(text);
    free(text);
    return true;
}

static const struct control_command commands[] = {
    {.name = "echo",
     .help = "say it back",
     .arguments = {{"text", CONTROL_STRING},
                   {"number", CONTROL_INTEGER, true},
                   {"flag", CONTROL_BOOLEAN, true},
                   {"list", CONTROL_LIST, true}},
     .run = run_echo},
    {.name = "fail", .help = "fail", .run = run_fail},
    {.name = "count", .alias = "tally", .help = "count", .run = run_count},
    {.name = "large", .help = "much", .arguments = {{"size", CONTROL_INTEGER}}, .run = run_large},
};

struct fixture {
    struct loop *loop;
    struct control *control;
    unsigned count;
    char directory[64], path[96], specification[112];
};

static int set_up(void **state)
{
    struct fixture *fixture = xcalloc(1, sizeof(*fixture));
    strcpy(fixture->directory, "/tmp/hartvisor-control-XXXXXX");
    assert_non_null(mkdtemp(fixture->directory));
    snprintf(fixture->path, sizeof(fixture->path), "%s/socket", fixture->directory);
    snprintf(fixture->specification, sizeof(fixture->specification), "unix:%s", fixture->path);
    fixture->loop = loop_create();
    fixture->control = control_create(fixture->loop);
    control_add_commands(fixture->control, commands, ARRAY_SIZE(commands), &fixture->count);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    control_destroy(fixture->control);
    loop_destroy(fixture->loop);
    assert_int_equal(access(fixture->path, F_OK), -1);
    assert_int_equal(rmdir(fixture->directory), 0);
    free(fixture);
    return 0;
}

/* --- The protocol, without a socket --- */

/* The answer to a request as text, in a static buffer. */
static const char *answer(struct control_session *session, const char *text)
{
    static char out[4096];
    struct json_object *request = json_tokener_parse(text);
    struct json_object *object = session_answer(session, request);
    snprintf(out, sizeof(out), "%s",
             json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
    json_object_put(object);
    json_object_put(request);
    return out;
}

static void answers(struct control_session *session, const char *text, const char *expected)
{
    assert_string_equal(answer(session, text), expected);
}

static void answers_error(struct control_session *session, const char *text, const char *class,
                          const char *fragment)
{
    char start[64];
    const char *out = answer(session, text);
    snprintf(start, sizeof(start), "{\"error\":{\"class\":\"%s\"", class);
    if (strncmp(out, start, strlen(start)) != 0 || !strstr(out, fragment))
        fail_msg("'%s' was answered by %s", text, out);
}

static void test_negotiation(void **state)
{
    struct fixture *fixture = *state;
    struct control_session session = {.control = fixture->control};
    answers_error(&session, "{\"execute\":\"count\"}", "CommandNotFound", "qmp_capabilities");
    answers_error(&session, "{\"execute\":\"query-commands\"}", "CommandNotFound", "qmp_capab");
    answers_error(&session, "{\"execute\":\"nothing\"}", "CommandNotFound", "qmp_capabilities");
    answers_error(&session,
                  "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}",
                  "GenericError", "enable");
    assert_int_equal(fixture->count, 0);
    answers(&session, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[]},\"id\":1}",
            "{\"return\":{},\"id\":1}");
    answers_error(&session, "{\"execute\":\"qmp_capabilities\"}", "CommandNotFound", "already");
    answers(&session, "{\"execute\":\"count\"}", "{\"return\":{}}");
    assert_int_equal(fixture->count, 1);
}

static void test_requests(void **state)
{
    struct fixture *fixture = *state;
    struct control_session session = {.control = fixture->control, .negotiated = true};
    struct control_session *s = &session;
    answers(s, "{\"execute\":\"count\",\"id\":{\"a\":[1,null]}}",
            "{\"return\":{},\"id\":{\"a\":[1,null]}}");
    answers(s, "{\"execute\":\"count\",\"id\":null}", "{\"return\":{},\"id\":null}");
    answers(s, "{\"execute\":\"fail\",\"id\":7}",
            "{\"error\":{\"class\":\"GenericError\",\"desc\":\"it cannot work\"},\"id\":7}");
    answers(s,
            "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\\u00e4\",\"number\":-5,"
            "\"flag\":true,\"list\":[1]}}",
            "{\"return\":{\"text\":\"\xc3\xa4\",\"number\":-5,\"flag\":true,\"list\":[1]}}");
    answers(s, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\"}}",
            "{\"return\":{\"text\":\"\"}}");

    answers_error(s, "[]", "GenericError", "object");
    answers_error(s, "null", "GenericError", "object");
    answers_error(s, "{}", "GenericError", "execute");
    answers_error(s, "{\"execute\":1}", "GenericError", "execute");
    answers_error(s, "{\"execute\":\"count\\u0000\"}", "GenericError", "execute");
    answers_error(s, "{\"execute\":\"count\",\"arguments\":[]}", "GenericError", "arguments");
    answers_error(s, "{\"execute\":\"count\",\"arguments\":null}", "GenericError", "arguments");
    answers_error(s, "{\"execute\":\"count\",\"argument\":{}}", "GenericError", "'argument'");
    answers_error(s, "{\"exec-oob\":\"count\"}", "GenericError", "exec-oob");
    answers_error(s, "{\"execute\":\"nothing\"}", "CommandNotFound", "'nothing'");
    answers_error(s, "{\"execute\":\"tally\"}", "CommandNotFound", "'tally'");
    answers_error(s, "{\"execute\":\"count\",\"arguments\":{\"x\":1}}", "GenericError", "'x'");
    answers_error(s, "{\"execute\":\"echo\"}", "GenericError", "'text'");
    answers_error(s, "{\"execute\":\"echo\",\"arguments\":{\"text\":1}}", "GenericError", "string");
    answers_error(s, "{\"execute\":\"echo\",\"arguments\":{\"text\":null}}", "GenericError",
                  "string");
    answers_error(s, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"a\\u0000b\"}}",
                  "GenericError", "NUL");
    answers_error(s, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"number\":1.5}}",
                  "GenericError", "integer");
    answers_error(s, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"flag\":1}}",
                  "GenericError", "boolean");
    answers_error(s, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"list\":{}}}",
                  "GenericError", "list");
    answers_error(s, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"nmber\":1}}",
                  "GenericError", "'number'");
    assert_int_equal(fixture->count, 2);
}

static void test_greeting_and_lists(void **state)
{
    struct fixture *fixture = *state;
    struct json_object *greeting = session_greeting(), *body, *version, *member;
    assert_true(json_object_object_get_ex(greeting, "QMP", &body));
    assert_true(json_object_object_get_ex(body, "version", &version));
    assert_true(json_object_object_get_ex(version, "qemu", &member));
    char text[64];
    snprintf(text, sizeof(text), "%d.%d.%d",
             json_object_get_int(json_object_object_get(member, "major")),
             json_object_get_int(json_object_object_get(member, "minor")),
             json_object_get_int(json_object_object_get(member, "micro")));
    assert_string_equal(text, HARTVISOR_VERSION);
    assert_true(json_object_is_type(json_object_object_get(version, "package"), json_type_string));
    assert_int_equal(json_object_array_length(json_object_object_get(body, "capabilities")), 0);
    json_object_put(greeting);

    struct control_session session = {.control = fixture->control, .negotiated = true};
    const char *list = answer(&session, "{\"execute\":\"query-commands\"}");
    assert_non_null(strstr(list, "\"name\":\"qmp_capabilities\""));
    assert_non_null(strstr(list, "{\"name\":\"fail\",\"help\":\"fail\",\"arguments\":[]}"));
    assert_non_null(strstr(list, "\"alias\":\"tally\""));
    assert_non_null(strstr(list, "{\"name\":\"number\",\"type\":\"integer\",\"optional\":true}"));
    assert_non_null(strstr(answer(&session, "{\"execute\":\"query-version\"}"), "\"package\""));
}

/* --- People's form --- */

static void test_text(void **state)
{
    struct fixture *fixture = *state;
    struct json_object *list, *result;
    struct error err;
    assert_true(control_execute(fixture->control, "query-commands", NULL, &list, &err));
    assert_string_equal(control_text_name(list, "echo", &err), "echo");
    assert_string_equal(control_text_name(list, "tally", &err), "count");
    assert_string_equal(control_text_name(list, "version", &err), "query-version");
    assert_null(control_text_name(list, "ecko", &err));
    assert_non_null(strstr(err.message, "'echo'"));
    assert_null(control_text_name(list, "", &err));

    char *words[] = {"text=a=b", "number=0x10", "flag=off", "list=[1,\"x\"]"};
    struct json_object *arguments = control_text_arguments(list, "echo", words, 4, &err);
    assert_non_null(arguments);
    assert_true(control_execute(fixture->control, "echo", arguments, &result, &err));
    assert_string_equal(json_object_to_json_string_ext(result, JSON_C_TO_STRING_PLAIN),
                        "{\"text\":\"a=b\",\"number\":16,\"flag\":false,\"list\":[1,\"x\"]}");
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    control_text_print(out, result);
    fclose(out);
    assert_string_equal(text, "text: a=b\nnumber: 16\nflag: no\nlist:\n  - 1\n  - x\n");
    free(text);
    json_object_put(result);
    json_object_put(arguments);

    static const struct {
        char *word;
        const char *fragment;
    } bad[] = {
        {"text", "ARG=VALUE"},  {"=x", "ARG=VALUE"},
        {"txt=x", "'text'"},    {"number=twelve", "number"},
        {"number=", "number"},  {"number=99999999999999999999", "number"},
        {"flag=maybe", "true"}, {"list={}", "list"},
        {"list=[", "list"},     {"zzzzzz=1", "'zzzzzz'"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char *one[] = {bad[i].word};
        assert_null(control_text_arguments(list, "echo", one, 1, &err));
        if (!strstr(err.message, bad[i].fragment))
            fail_msg("'%s': %s", bad[i].word, err.message);
    }

    /* A server that describes nothing: values by what they look like. */
    struct json_object *bare = json_tokener_parse("[{\"name\":\"do-it\"},{},1]");
    char *guesses[] = {"a=1", "b=true", "c=text", "d=[2]"};
    arguments = control_text_arguments(bare, "do-it", guesses, 4, &err);
    assert_string_equal(json_object_to_json_string_ext(arguments, JSON_C_TO_STRING_PLAIN),
                        "{\"a\":1,\"b\":true,\"c\":\"text\",\"d\":[2]}");
    json_object_put(arguments);
    json_object_put(bare);

    /* What an answer contains must not reach the terminal as a command. */
    struct json_object *hostile = json_tokener_parse("[{\"a\":\"x\\u001b[2Jy\\n\",\"b\":[]},null]");
    out = open_memstream(&text, &size);
    control_text_print(out, hostile);
    fclose(out);
    assert_string_equal(text, "- a: x?[2Jy?\n  b:\n- none\n");
    free(text);
    json_object_put(hostile);
    json_object_put(list);
}

/* --- The server, with clients in the same thread --- */

struct client {
    int fd;
    char text[1 << 16]; /* received, terminated */
    size_t length;
    bool closed;
};

static void client_connect(struct fixture *fixture, struct client *client)
{
    struct error err;
    *client = (struct client){.fd = unix_connect(fixture->path, &err)};
    if (client->fd < 0)
        fail_msg("%s", err.message);
    fcntl(client->fd, F_SETFL, O_NONBLOCK);
}

static void client_receive(struct client *client)
{
    ssize_t count = -1;
    errno = EAGAIN;
    while (client->length < sizeof(client->text) - 1 &&
           (count = recv(client->fd, client->text + client->length,
                         sizeof(client->text) - 1 - client->length, 0)) > 0)
        client->length += (size_t)count;
    client->closed = count == 0 || (count < 0 && errno != EAGAIN);
    client->text[client->length] = '\0';
}

static void client_send(struct client *client, const char *text)
{
    assert_int_equal(send(client->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Runs the loop until the text arrives, and forgets everything up to its end. */
static void client_expect(struct fixture *fixture, struct client *client, const char *text)
{
    for (unsigned turn = 0; turn < 2000; turn++) {
        loop_turn(fixture->loop, 1);
        client_receive(client);
        char *found = strstr(client->text, text);
        if (found) {
            client->length -= (size_t)(found + strlen(text) - client->text);
            memmove(client->text, found + strlen(text), client->length + 1);
            return;
        }
    }
    fail_msg("no '%s' came, but: %s", text, client->text);
}

static void client_expect_end(struct fixture *fixture, struct client *client)
{
    for (unsigned turn = 0; turn < 2000 && !client->closed; turn++) {
        loop_turn(fixture->loop, 1);
        client->length = 0;
        client_receive(client);
    }
    assert_true(client->closed);
}

static void client_negotiate(struct fixture *fixture, struct client *client)
{
    client_connect(fixture, client);
    client_expect(fixture, client, "{\"QMP\":{\"version\":");
    client_expect(fixture, client, "\r\n");
    client_send(client, "{\"execute\":\"qmp_capabilities\"}");
    client_expect(fixture, client, "{\"return\":{}}\r\n");
}

static void listen_ok(struct fixture *fixture)
{
    struct error err;
    if (!control_listen(fixture->control, fixture->specification, &err))
        fail_msg("%s", err.message);
}

static void test_socket_file(void **state)
{
    struct fixture *fixture = *state;
    struct stat status;
    mode_t mask = umask(0);
    listen_ok(fixture);
    umask(mask);
    assert_int_equal(lstat(fixture->path, &status), 0);
    assert_true(S_ISSOCK(status.st_mode));
    assert_int_equal(status.st_mode & 07777, 0600);

    /* In use by the first. */
    struct control *second = control_create(fixture->loop);
    struct error err;
    assert_false(control_listen(second, fixture->specification, &err));
    assert_non_null(strstr(err.message, fixture->path));
    assert_non_null(strstr(err.message, "--control"));
    control_destroy(second);
    assert_int_equal(access(fixture->path, F_OK), 0);
}

static void test_socket_refusals(void **state)
{
    struct fixture *fixture = *state;
    struct error err;
    char text[400];
    assert_false(control_listen(fixture->control, "tcp:1234", &err));
    assert_non_null(strstr(err.message, "unix:PATH"));
    assert_false(control_listen(fixture->control, "unix:", &err));
    assert_false(control_listen(fixture->control, "unix:/nonexistent/a/b", &err));
    assert_non_null(strstr(err.message, "/nonexistent/a/b"));
    memset(text, 'x', sizeof(text));
    memcpy(text, "unix:", 5);
    text[sizeof(text) - 1] = '\0';
    assert_false(control_listen(fixture->control, text, &err));
    assert_non_null(strstr(err.message, "107"));

    /* A file of another kind stays. */
    int fd = open(fixture->path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, "data", 4), 4);
    close(fd);
    assert_false(control_listen(fixture->control, fixture->specification, &err));
    assert_non_null(strstr(err.message, "no socket"));
    struct stat status;
    assert_int_equal(stat(fixture->path, &status), 0);
    assert_int_equal(status.st_size, 4);
    unlink(fixture->path);
}

static void test_stale_and_replaced_sockets(void **state)
{
    struct fixture *fixture = *state;
    struct unix_listener old, new;
    struct error err;
    /* Closed without removing the file, as when a process was killed. */
    assert_true(unix_listener_init(&old, fixture->path, &err));
    close(old.fd);
    free(old.path);
    assert_int_equal(access(fixture->path, F_OK), 0);
    assert_true(unix_listener_init(&old, fixture->path, &err));

    /* Replaced by another: not ours to remove. */
    unlink(fixture->path);
    assert_true(unix_listener_init(&new, fixture->path, &err));
    unix_listener_finish(&old);
    assert_int_equal(access(fixture->path, F_OK), 0);
    unix_listener_finish(&new);
    assert_int_equal(access(fixture->path, F_OK), -1);
    assert_int_equal(unix_connect(fixture->path, &err), -1);
    assert_non_null(strstr(err.message, fixture->path));
}

static void test_clients(void **state)
{
    struct fixture *fixture = *state;
    struct client first, second, silent;
    listen_ok(fixture);
    client_negotiate(fixture, &first);
    client_negotiate(fixture, &second);
    client_connect(fixture, &silent);
    client_expect(fixture, &silent, "\r\n");

    client_send(&first, "{\"execute\":\"co");
    client_send(&second, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"2\"},\"id\":2}");
    client_expect(fixture, &second, "{\"return\":{\"text\":\"2\"},\"id\":2}\r\n");
    client_send(&first, "unt\",\"id\":1}{\"execute\":\"fail\",\"id\":3}nonsense\n"
                        "{\"execute\":\"count\",\"id\":4}");
    client_expect(fixture, &first, "{\"return\":{},\"id\":1}\r\n{\"error\":{\"class\":");
    client_expect(fixture, &first, "\"id\":3}\r\n{\"error\":{\"class\":\"GenericError\"");
    client_expect(fixture, &first, "{\"return\":{},\"id\":4}\r\n");
    assert_int_equal(fixture->count, 2);

    /* Events go to those that negotiated. */
    control_emit(fixture->control, "TESTED", json_tokener_parse("{\"well\":true}"));
    client_expect(fixture, &first, "{\"timestamp\":{\"seconds\":");
    client_expect(fixture, &first, "\"event\":\"TESTED\",\"data\":{\"well\":true}}\r\n");
    client_expect(fixture, &second, "\"event\":\"TESTED\"");
    client_receive(&silent);
    assert_string_equal(silent.text, "");

    /* One that only sends, then shuts its side down, gets its answers. */
    client_send(&silent, "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"count\",\"id\":9}\n");
    shutdown(silent.fd, SHUT_WR);
    client_expect(fixture, &silent, "{\"return\":{},\"id\":9}\r\n");
    client_expect_end(fixture, &silent);
    assert_int_equal(fixture->count, 3);

    /* One that leaves in the middle of a message harms nobody. */
    client_send(&second, "{\"execute\":\"co");
    close(second.fd);
    client_send(&first, "{\"execute\":\"count\",\"id\":5}");
    client_expect(fixture, &first, "{\"return\":{},\"id\":5}");
    close(first.fd);
    close(silent.fd);
    for (unsigned i = 0; i < 5; i++)
        loop_turn(fixture->loop, 1);
}

static void *emit_thread(void *opaque)
{
    for (int i = 0; i < 100; i++) {
        struct json_object *data = json_object_new_object();
        json_object_object_add(data, "number", json_object_new_int(i));
        control_emit(opaque, "COUNTED", data);
    }
    return NULL;
}

static void test_events_of_other_threads(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    pthread_t thread;
    listen_ok(fixture);
    client_negotiate(fixture, &client);
    assert_int_equal(pthread_create(&thread, NULL, emit_thread, fixture->control), 0);
    for (int i = 0; i < 100; i++) {
        char text[64];
        snprintf(text, sizeof(text), "\"data\":{\"number\":%d}}\r\n", i);
        client_expect(fixture, &client, text);
    }
    pthread_join(thread, NULL);
    close(client.fd);
}

/* Answers that the peer does not read: the server stops reading it, and goes on when it reads. */
static void test_slow_reader(void **state)
{
    struct fixture *fixture = *state;
    struct client slow, other;
    listen_ok(fixture);
    client_negotiate(fixture, &slow);
    client_negotiate(fixture, &other);
    unsigned sent = 0;
    static const char request[] = "{\"execute\":\"large\",\"arguments\":{\"size\":10000}}";
    for (unsigned turn = 0; turn < 3000; turn++) {
        if (send(slow.fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request))
            sent++;
        loop_turn(fixture->loop, 0);
    }
    assert_in_range(sent, 100, 2999);
    client_send(&other, "{\"execute\":\"count\",\"id\":1}");
    client_expect(fixture, &other, "\"id\":1}");
    unsigned received = 0;
    for (unsigned turn = 0; turn < 100000 && received < sent; turn++) {
        loop_turn(fixture->loop, 0);
        slow.length = 0;
        client_receive(&slow);
        for (size_t i = 0; i < slow.length; i++)
            received += slow.text[i] == '\n';
        assert_false(slow.closed);
    }
    assert_int_equal(received, sent);
    close(slow.fd);
    close(other.fd);
}

static void test_client_that_does_not_read_is_dropped(void **state)
{
    struct fixture *fixture = *state;
    struct client idle, other;
    listen_ok(fixture);
    client_negotiate(fixture, &idle);
    client_negotiate(fixture, &other);
    char *text = xmalloc(10001);
    memset(text, 'x', 10000);
    text[10000] = '\0';
    for (unsigned i = 0; i < 300; i++) {
        control_emit(fixture->control, "LARGE", json_object_new_string(text));
        client_expect(fixture, &other, "}\r\n");
    }
    free(text);
    client_expect_end(fixture, &idle);
    client_send(&other, "{\"execute\":\"count\",\"id\":1}");
    client_expect(fixture, &other, "\"id\":1}");
    close(idle.fd);
    close(other.fd);
}

static void test_endless_message(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    struct rusage before, after;
    listen_ok(fixture);
    client_negotiate(fixture, &client);
    char *text = xmalloc(4097);
    memset(text, 'x', 4096);
    text[4096] = '\0';
    getrusage(RUSAGE_SELF, &before);
    client_send(&client, "{\"execute\":\"");
    for (unsigned i = 0; i < 5000; i++) {
        client_send(&client, text);
        loop_turn(fixture->loop, 10);
    }
    getrusage(RUSAGE_SELF, &after);
    free(text);
    assert_true(after.ru_maxrss - before.ru_maxrss < 8 * 1024);
    client_expect(fixture, &client, "longer than");
    client_send(&client, "\"}\n{\"execute\":\"count\",\"id\":1}");
    client_expect(fixture, &client, "{\"return\":{},\"id\":1}");
    close(client.fd);
}

/* Those past the limit wait in the backlog until others leave. */
static void test_many_clients(void **state)
{
    enum { SERVED = 32, COUNT = SERVED + 8 };
    struct fixture *fixture = *state;
    static struct client clients[COUNT];
    listen_ok(fixture);
    for (unsigned i = 0; i < COUNT; i++) {
        client_connect(fixture, &clients[i]);
        loop_turn(fixture->loop, 0);
    }
    for (unsigned i = 0; i < SERVED; i++)
        client_expect(fixture, &clients[i], "QMP");
    for (unsigned i = SERVED; i < COUNT; i++) {
        loop_turn(fixture->loop, 1);
        client_receive(&clients[i]);
        assert_int_equal(clients[i].length, 0);
    }
    for (unsigned i = SERVED; i < COUNT; i++) {
        close(clients[i - SERVED].fd);
        client_expect(fixture, &clients[i], "QMP");
    }
    for (unsigned i = COUNT - SERVED; i < COUNT; i++)
        close(clients[i].fd);
}

/* --- A machine behind it --- */

struct guest {
    struct fixture *fixture;
    struct machine *machine;
    int status;
};

static void *run_guest(void *opaque)
{
    struct guest *guest = opaque;
    guest->status = machine_run(guest->machine);
    return NULL;
}

/* Waits for a line with `text`, reading line by line; blocking. */
static void read_until(FILE *file, const char *text)
{
    char line[8192];
    while (fgets(line, sizeof(line), file))
        if (strstr(line, text))
            return;
    fail_msg("the connection ended before '%s'", text);
}

static void ask(FILE *file, const char *command, const char *expected)
{
    dprintf(fileno(file), "{\"execute\":\"%s\"}\n", command);
    read_until(file, expected);
}

static void test_machine(void **state)
{
    struct fixture *fixture = *state;
    static const uint32_t program[] = {0x00000013, 0xffdff06f}; /* nop; j -4 */
    char path[96];
    snprintf(path, sizeof(path), "%s/program", fixture->directory);
    FILE *out = fopen(path, "w");
    assert_int_equal(fwrite(program, sizeof(program), 1, out), 1);
    fclose(out);

    struct machine_config config;
    struct error err;
    machine_config_init(&config);
    config.memory_size = 16 << 20;
    config.firmware = path;
    config.serial = "none";
    struct guest guest = {.fixture = fixture, .machine = machine_create(&config, &err)};
    if (!guest.machine)
        fail_msg("%s", err.message);
    struct control *control = control_create(machine_loop(guest.machine));
    control_add_machine(control, guest.machine);
    if (!control_listen(control, fixture->specification, &err))
        fail_msg("%s", err.message);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_guest, &guest), 0);

    int fd = unix_connect(fixture->path, &err);
    FILE *file = fdopen(fd, "r");
    read_until(file, "QMP");
    ask(file, "qmp_capabilities", "return");
    ask(file, "query-status", "\"status\":\"running\",\"running\":true");
    while (!machine_instructions(guest.machine))
        usleep(1000);
    ask(file, "stop", "STOP");
    ask(file, "query-status", "\"status\":\"paused\",\"running\":false");
    uint64_t instructions = machine_instructions(guest.machine);
    usleep(20000);
    assert_int_equal(machine_instructions(guest.machine), instructions);
    ask(file, "cont", "RESUME");
    ask(file, "query-status", "\"running\":true");
    ask(file, "system_reset", "\"event\":\"RESET\",\"data\":{\"guest\":false,");
    ask(file, "query-status", "\"running\":true");
    ask(file, "quit", "return");
    read_until(file,
               "\"event\":\"SHUTDOWN\",\"data\":{\"guest\":false,\"reason\":\"host-qmp-quit\"}");
    fclose(file);
    pthread_join(thread, NULL);
    assert_int_equal(guest.status, 0);
    control_destroy(control);
    machine_destroy(guest.machine);
    unlink(path);
}

int main(void)
{
#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_invalid_messages),
        cmocka_unit_test(test_message_limits),
        WITH_FIXTURE(test_negotiation),
        WITH_FIXTURE(test_requests),
        WITH_FIXTURE(test_greeting_and_lists),
        WITH_FIXTURE(test_text),
        WITH_FIXTURE(test_socket_file),
        WITH_FIXTURE(test_socket_refusals),
        WITH_FIXTURE(test_stale_and_replaced_sockets),
        WITH_FIXTURE(test_clients),
        WITH_FIXTURE(test_events_of_other_threads),
        WITH_FIXTURE(test_slow_reader),
        WITH_FIXTURE(test_client_that_does_not_read_is_dropped),
        WITH_FIXTURE(test_endless_message),
        WITH_FIXTURE(test_many_clients),
        WITH_FIXTURE(test_machine),
    };
    return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
