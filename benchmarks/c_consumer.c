/* The same work as the Python clients, done with rabbitmq-c: the yardstick of a C program.
 *
 *   c_consumer URL CASE NAME=VALUE...
 *
 * CASE is consume, ack or publish.  Prints one JSON line with the CPU (getrusage, user + system) and the wall
 * time of the measured part; the warm-up runs before it on a channel of its own.
 */
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

struct options {
  const char *queue, *warmup_queue, *ack, *properties;
  long messages, warmup, size, prefetch, confirm, live;
};

struct measured {
  double cpu, wall;
};

static void fail(const char *what) {
  fprintf(stderr, "rabbitmq-c: %s\n", what);
  exit(1);
}

static void check(amqp_connection_state_t connection, const char *what) {
  if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

static double seconds(struct timeval value) { return value.tv_sec + value.tv_usec / 1e6; }

static struct measured now(void) {
  struct rusage usage;
  struct timespec clock;
  getrusage(RUSAGE_SELF, &usage);
  clock_gettime(CLOCK_MONOTONIC, &clock);
  return (struct measured){seconds(usage.ru_utime) + seconds(usage.ru_stime),
                           clock.tv_sec + clock.tv_nsec / 1e9};
}

static amqp_connection_state_t connect_to(char *url) {
  struct amqp_connection_info info;
  amqp_connection_state_t connection = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  if (amqp_parse_url(url, &info)) fail("bad URL");
  if (amqp_socket_open(socket, info.host, info.port)) fail("cannot connect");
  amqp_rpc_reply_t reply = amqp_login(connection, info.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN,
                                      info.user, info.password);
  if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail("login refused");
  return connection;
}

static amqp_queue_declare_ok_t *look_up(amqp_connection_state_t connection, int channel,
                                        const char *queue) {
  amqp_queue_declare_ok_t *answer = amqp_queue_declare(
      connection, channel, amqp_cstring_bytes(queue), 1, 0, 0, 0, amqp_empty_table);
  check(connection, "queue.declare");
  return answer;
}

/* An answer to this call means that the peer has seen everything sent before it. */
static void synchronise(amqp_connection_state_t connection, int channel) {
  amqp_basic_qos(connection, channel, 0, 0, 0);
  check(connection, "basic.qos");
}

static uint64_t receive(amqp_connection_state_t connection) {
  amqp_envelope_t envelope;
  amqp_maybe_release_buffers(connection);
  amqp_rpc_reply_t reply = amqp_consume_message(connection, &envelope, NULL, 0);
  if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail("basic.deliver");
  uint64_t tag = envelope.delivery_tag;
  amqp_destroy_envelope(&envelope);
  return tag;
}

static void start_consumer(amqp_connection_state_t connection, int channel, const char *queue,
                           int no_ack) {
  amqp_basic_consume(connection, channel, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, no_ack, 0,
                     amqp_empty_table);
  check(connection, "basic.consume");
}

static void consume(amqp_connection_state_t connection, int channel, const char *queue, long messages,
                    const struct options *options) {
  int each = !strcmp(options->ack, "each");
  int group = !strcmp(options->ack, "group");
  uint64_t tag = 0;
  start_consumer(connection, channel, queue, !each && !group);
  for (long count = 1; count <= messages; count++) {
    tag = receive(connection);
    if (each) {
      if (amqp_basic_ack(connection, channel, tag, 0)) fail("basic.ack");
    } else if (group && (count % 100 == 0 || count == messages)) {
      if (amqp_basic_ack(connection, channel, tag, 1)) fail("basic.ack");
    }
  }
  if (tag != (uint64_t)messages) fail("not every message came once");
  if (each || group) synchronise(connection, channel);
}

static void acknowledge_all(amqp_connection_state_t connection, int channel, long messages) {
  for (long tag = 1; tag <= messages; tag++) {
    if (amqp_basic_ack(connection, channel, tag, 0)) fail("basic.ack");
  }
  synchronise(connection, channel);
}

/* Reads acks until everything up to `count` is confirmed. */
static void await_confirms(amqp_connection_state_t connection, uint64_t count, uint64_t *confirmed) {
  while (*confirmed < count) {
    amqp_frame_t frame;
    amqp_maybe_release_buffers(connection);
    if (amqp_simple_wait_frame(connection, &frame)) fail("confirm");
    if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD)
      fail("something else than a confirm came");
    amqp_basic_ack_t *ack = frame.payload.method.decoded;
    *confirmed = ack->multiple ? ack->delivery_tag : *confirmed + 1;
  }
}

static void publish(amqp_connection_state_t connection, int channel, const char *queue, long messages,
                    const struct options *options) {
  amqp_table_entry_t headers[3] = {
      {amqp_cstring_bytes("source"), {AMQP_FIELD_KIND_UTF8, {.bytes = amqp_cstring_bytes("sensor-17")}}},
      {amqp_cstring_bytes("attempt"), {AMQP_FIELD_KIND_I32, {.i32 = 3}}},
      {amqp_cstring_bytes("traced"), {AMQP_FIELD_KIND_BOOLEAN, {.boolean = 1}}}};
  amqp_basic_properties_t properties = {
      ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG |
                AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_HEADERS_FLAG,
      .content_type = amqp_cstring_bytes("application/json"),
      .delivery_mode = 1,
      .message_id = amqp_cstring_bytes("0f1e2d3c4b5a6978"),
      .timestamp = 1700000000,
      .headers = {3, headers}};
  amqp_basic_properties_t *chosen = strcmp(options->properties, "none") ? &properties : NULL;
  amqp_bytes_t body = amqp_bytes_malloc(options->size);
  uint64_t confirmed = 0;
  memset(body.bytes, 'x', body.len);
  if (options->confirm) {
    amqp_confirm_select(connection, channel);
    check(connection, "confirm.select");
  }
  for (long count = 1; count <= messages; count++) {
    if (amqp_basic_publish(connection, channel, amqp_empty_bytes, amqp_cstring_bytes(queue), 0, 0, chosen,
                           body))
      fail("basic.publish");
    if (options->confirm && (count % 1000 == 0 || count == messages))
      await_confirms(connection, count, &confirmed);
  }
  synchronise(connection, channel);
  amqp_bytes_free(body);
}

static struct measured measure(amqp_connection_state_t connection, int channel, const char *what,
                               const char *queue, long messages, const struct options *options) {
  amqp_channel_open(connection, channel);
  check(connection, "channel.open");
  amqp_basic_qos(connection, channel, 0, options->prefetch, 0);
  check(connection, "basic.qos");
  if (!strcmp(what, "ack")) {
    start_consumer(connection, channel, queue, 0);
    for (long count = 0; count < messages; count++) receive(connection);
  }
  struct measured start = now();
  if (!strcmp(what, "consume"))
    consume(connection, channel, queue, messages, options);
  else if (!strcmp(what, "ack"))
    acknowledge_all(connection, channel, messages);
  else
    publish(connection, channel, queue, messages, options);
  struct measured stop = now();
  return (struct measured){stop.cpu - start.cpu, stop.wall - start.wall};
}

static struct options parse(int count, char **arguments) {
  struct options options = {"", "", "auto", "usual", 1000, 0, 100, 0, 0, 0};
  for (int index = 0; index < count; index++) {
    char *value = strchr(arguments[index], '=');
    if (!value) fail("NAME=VALUE expected");
    *value++ = 0;
    if (!strcmp(arguments[index], "queue")) options.queue = value;
    else if (!strcmp(arguments[index], "warmup_queue")) options.warmup_queue = value;
    else if (!strcmp(arguments[index], "ack")) options.ack = value;
    else if (!strcmp(arguments[index], "properties")) options.properties = value;
    else if (!strcmp(arguments[index], "messages")) options.messages = atol(value);
    else if (!strcmp(arguments[index], "warmup")) options.warmup = atol(value);
    else if (!strcmp(arguments[index], "size")) options.size = atol(value);
    else if (!strcmp(arguments[index], "prefetch")) options.prefetch = atol(value);
    else if (!strcmp(arguments[index], "confirm")) options.confirm = atol(value);
    else if (!strcmp(arguments[index], "live")) options.live = atol(value);
    else fail("unknown option");
  }
  return options;
}

int main(int count, char **arguments) {
  if (count < 3) fail("usage: c_consumer URL CASE NAME=VALUE...");
  const char *what = arguments[2];
  struct options options = parse(count - 3, arguments + 3);
  amqp_connection_state_t connection = connect_to(arguments[1]);
  if (options.warmup)
    measure(connection, 1, what, options.warmup_queue, options.warmup, &options);
  struct measured result = measure(connection, 2, what, options.queue, options.messages, &options);
  unsigned left = 0, sum = 0;
  if (!options.live) { /* the embedded peer's books */
    amqp_queue_declare_ok_t *books =
        look_up(connection, 2, strcmp(what, "publish") ? "unacked" : "published");
    left = books->message_count;
    sum = books->consumer_count;
  }
  printf("{\"messages\": %ld, \"cpu\": %.6f, \"wall\": %.6f, \"left\": %u, \"sum\": %u}\n",
         options.messages, result.cpu, result.wall, left, sum);
  amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(connection);
  return 0;
}
