// wsload: single-threaded epoll WebSocket load generator.
//   wsload echo    HOST PORT PATH CONNS SIZE SECONDS [DEPTH]   each connection keeps DEPTH messages in flight
//   wsload fanout  HOST PORT PATH CONNS SIZE MESSAGES [WINDOW] conn 0 publishes; every connection gets every message
//   wsload connect HOST PORT PATH CONCURRENCY TOTAL            open, handshake, one echo, close
//   wsload idle    HOST PORT PATH CONNS SECONDS                open and hold
//   wsload rooms   HOST PORT PATH CONNS SIZE ROOMS ROUNDS      connection i opens PATH/(i mod ROOMS); each round one
//                                                              member of each room publishes to its room
// Prints "begin" when the connections stand and the measured part starts, "end" when it is over, then the figures: who
// measures the server reads its CPU time and memory at these two lines.
// Environment: WSEXT     value of Sec-WebSocket-Extensions
//              WSJSON=1  messages are JSON text instead of the alphabet
//              WSTEXT    every message is this text, whatever SIZE is
//              WSSTALL=1 fanout: the last connection never reads; a small receive buffer here, and `?stalled` in its path,
//                        which may make the server choose a small one too, see to it that it stalls at once
//              WSPUB=N   fanout: connections 0 to N-1 take turns in publishing, WINDOW messages in flight in all
//              WSPUBPORT fanout: where these connections go instead of PORT: another process on the same hub
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
  int fd, state;
  uint8_t *buf;
  size_t len, cap;
  double t0[64];
  unsigned th, tt;
  long got;
  uint8_t *out;
  size_t outlen, outoff;
} Conn;
static int ep;
static const char *host, *path;
static int port;
static struct sockaddr_in addr;
static Conn *cs;
static long nconn;
static size_t size;
static uint8_t *frame;
static size_t framelen;
static double *lat;
static size_t nlat, caplat;
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}
static void die(const char *m) {
  perror(m);
  exit(1);
}
static void addlat(double x) {
  if (nlat < caplat)
    lat[nlat++] = x;
}
static int cmp(const void *a, const void *b) {
  double x = *(double *)a, y = *(double *)b;
  return x < y ? -1 : x > y;
}
// A list of small records, padded to exactly n bytes: what a chat or a dashboard sends.
static void fill(char *text, size_t n) {
  if (getenv("WSTEXT")) {
    memcpy(text, getenv("WSTEXT"), n);
    return;
  }
  if (!getenv("WSJSON")) {
    for (size_t i = 0; i < n; i++)
      text[i] = 'a' + i % 26;
    return;
  }
  size_t at = 0;
  text[at++] = '[';
  for (unsigned i = 0, seed = 7; at + 120 < n; i++) {
    seed = seed * 1103515245 + 12345;
    at += sprintf(text + at, "%s{\"id\":%u,\"user\":\"user-%u\",\"price\":%u.%02u,\"live\":%s}", i ? "," : "", 1000 + i,
                  (seed >> 16) % 977, (seed >> 8) % 5000, seed % 100, seed & 64 ? "true" : "false");
  }
  memset(text + at, ' ', n - at);
  text[n - 1] = ']';
}
static void mkframe(size_t n, int op) {
  framelen = 0;
  frame = malloc(n + 14);
  uint8_t *p = frame;
  *p++ = 0x80 | op;
  if (n < 126)
    *p++ = 0x80 | n;
  else if (n < 65536) {
    *p++ = 0x80 | 126;
    *p++ = n >> 8;
    *p++ = n;
  } else {
    *p++ = 0x80 | 127;
    for (int i = 7; i >= 0; i--)
      *p++ = (uint64_t)n >> (8 * i);
  }
  uint8_t mk[4] = {0x12, 0x34, 0x56, 0x78};
  memcpy(p, mk, 4);
  p += 4;
  char *text = malloc(n + 128);
  fill(text, n);
  for (size_t i = 0; i < n; i++)
    *p++ = text[i] ^ mk[i & 3];
  free(text);
  framelen = p - frame;
}
static long rooms, publishers = 1;
static void dial(Conn *c) {
  struct sockaddr_in to = addr;
  if (getenv("WSPUBPORT") && c - cs < publishers)
    to.sin_port = htons(atoi(getenv("WSPUBPORT")));
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (c->fd < 0)
    die("socket");
  struct sockaddr_in src = {.sin_family = AF_INET};
  src.sin_addr.s_addr = htonl(0x7f000001 + (uint32_t)((c - cs) / 20000));
  int one = 1;
  setsockopt(c->fd, SOL_IP, 24, &one, sizeof one);
  int little = 4096, stalls = getenv("WSSTALL") && c - cs == nconn - 1;
  if (stalls)
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
  bind(c->fd, (void *)&src, sizeof src);
  if (connect(c->fd, (void *)&to, sizeof to))
    die("connect");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  char r[512], room[24] = "";
  if (rooms)
    snprintf(room, sizeof room, "/%ld", (c - cs) % rooms);
  int n =
      snprintf(r, sizeof r,
               "GET %s%s%s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "
               "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
               path, room, stalls ? "?stalled" : "", host, port, getenv("WSEXT") ? "Sec-WebSocket-Extensions: " : "",
               getenv("WSEXT") ? getenv("WSEXT") : "", getenv("WSEXT") ? "\r\n" : "");
  if (write(c->fd, r, n) != n)
    die("write");
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  c->state = 0;
  c->len = 0;
  c->th = c->tt = 0;
  c->got = 0;
  c->outlen = c->outoff = 0;
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e))
    die("epoll");
}
static int wr(Conn *c, const uint8_t *p, size_t n) { // spin on EAGAIN is unwanted: buffer remainder
  if (c->outlen - c->outoff) {
    c->out = realloc(c->out, c->outlen + n);
    memcpy(c->out + c->outlen, p, n);
    c->outlen += n;
    return 0;
  }
  ssize_t k = write(c->fd, p, n);
  if (k < 0) {
    if (errno != EAGAIN)
      die("write");
    k = 0;
  }
  if ((size_t)k < n) {
    c->out = realloc(c->out, n - k);
    memcpy(c->out, p + k, n - k);
    c->outlen = n - k;
    c->outoff = 0;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
  }
  return 0;
}
static void flush(Conn *c) {
  while (c->outoff < c->outlen) {
    ssize_t k = write(c->fd, c->out + c->outoff, c->outlen - c->outoff);
    if (k < 0) {
      if (errno == EAGAIN)
        return;
      die("write");
    }
    c->outoff += k;
  }
  c->outlen = c->outoff = 0;
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}
static void sendmsg1(Conn *c) {
  c->t0[c->tt++ & 63] = now();
  wr(c, frame, framelen);
}
static long opened, frames, closed_;
typedef void (*onmsg)(Conn *, size_t);
static onmsg handler;
static void (*onopen)(Conn *);
static void pump(Conn *c) {
  for (;;) {
    if (c->cap - c->len < 4096) {
      c->cap = c->cap ? c->cap * 2 : 4096 + size;
      c->buf = realloc(c->buf, c->cap);
    }
    size_t want = c->cap - c->len;
    ssize_t k = read(c->fd, c->buf + c->len, want);
    if (k < 0) {
      if (errno == EAGAIN)
        return;
      if (errno == ECONNRESET) {
        k = 0;
      } else
        die("read");
    }
    if (k == 0) {
      close(c->fd);
      c->fd = -1;
      closed_++;
      c->state = 9;
      return;
    }
    c->len += k;
    size_t off = 0;
    if (c->state == 0) {
      uint8_t *e = memmem(c->buf, c->len, "\r\n\r\n", 4);
      if (!e)
        continue;
      if (memcmp(c->buf, "HTTP/1.1 101", 12)) {
        fprintf(stderr, "bad handshake: %.*s\n", (int)c->len, c->buf);
        exit(1);
      }
      off = e - c->buf + 4;
      c->state = 1;
      opened++;
      if (onopen)
        onopen(c);
    }
    while (c->len - off >= 2) {
      uint8_t *p = c->buf + off;
      size_t h = 2, n = p[1] & 127;
      if (n == 126) {
        if (c->len - off < 4)
          break;
        n = p[2] << 8 | p[3];
        h = 4;
      } else if (n == 127) {
        if (c->len - off < 10)
          break;
        n = 0;
        for (int i = 0; i < 8; i++)
          n = n << 8 | p[2 + i];
        h = 10;
      }
      if (c->len - off < h + n)
        break;
      int op = p[0] & 15;
      off += h + n;
      if (op == 9) {
        uint8_t pong[6] = {0x8a, 0x80, 0, 0, 0, 0};
        wr(c, pong, 6);
      } else if (op == 8) {
        uint8_t cl[6] = {0x88, 0x80, 0, 0, 0, 0};
        wr(c, cl, 6);
      } else if (op <= 2) {
        frames++;
        handler(c, n);
      }
      if (c->fd < 0)
        return;
    }
    memmove(c->buf, c->buf + off, c->len - off);
    c->len -= off;
    if ((size_t)k < want)
      return;
  }
}
static void loop(int ms) {
  struct epoll_event ev[512];
  int n = epoll_wait(ep, ev, 512, ms);
  for (int i = 0; i < n; i++) {
    Conn *c = ev[i].data.ptr;
    if (c->fd < 0)
      continue;
    if (ev[i].events & EPOLLOUT)
      flush(c);
    if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
      pump(c);
  }
}
static void nop(Conn *c, size_t n) {
  (void)c;
  (void)n;
}
static void openall(void) {
  for (long i = 0; i < nconn; i++) {
    dial(&cs[i]);
    if (i % 100 == 99) {
      double t = now();
      while (opened < i + 1 - 50 && now() - t < 20)
        loop(10);
    }
  }
  double t = now();
  while (opened < nconn && now() - t < 30)
    loop(10);
  if (opened < nconn) {
    fprintf(stderr, "opened only %ld of %ld\n", opened, nconn);
    exit(1);
  }
}
static void begin(void) {
  puts("begin");
  fflush(stdout);
}
static void report(double s, long n) {
  puts("end");
  fflush(stdout);
  qsort(lat, nlat, sizeof *lat, cmp);
  printf("msgs=%ld secs=%.3f rate=%.0f p50us=%.1f p99us=%.1f p999us=%.1f\n", n, s, n / s,
         nlat ? lat[nlat / 2] * 1e6 : 0, nlat ? lat[(size_t)(nlat * .99)] * 1e6 : 0,
         nlat ? lat[(size_t)(nlat * .999)] * 1e6 : 0);
}
static void settle(double seconds) {
  double t = now();
  while (now() - t < seconds)
    loop(10);
}
static void on_echo(Conn *c, size_t n) {
  (void)n;
  addlat(now() - c->t0[c->th++ & 63]);
  sendmsg1(c);
}
static long pubsent, pubtotal, window;
static double pubt[1 << 20];
static void on_fan(Conn *c, size_t n) {
  (void)n;
  if (c->got < (1 << 20))
    addlat(now() - pubt[c->got]);
  c->got++;
}
static double round_at;
static void on_room(Conn *c, size_t n) {
  (void)n;
  (void)c;
  addlat(now() - round_at);
}
static void cc_open(Conn *c) {
  wr(c, frame, framelen);
}
static void cc_msg(Conn *c, size_t n) {
  (void)n;
  addlat(now() - c->t0[0]);
  uint8_t cl[8] = {0x88, 0x82, 0, 0, 0, 0, 3, 0xe8};
  wr(c, cl, 8);
}

static void echo(double seconds, int depth) {
  openall();
  handler = on_echo;
  for (int d = 0; d < depth; d++)
    for (long i = 0; i < nconn; i++)
      sendmsg1(&cs[i]);
  settle(0.5);
  nlat = 0;
  frames = 0;
  begin();
  double t = now();
  settle(seconds);
  report(now() - t, frames);
}

static void fanout(void) {
  openall();
  settle(0.5);
  long readers = nconn;
  if (getenv("WSSTALL")) {
    Conn *stalled = &cs[--readers];
    epoll_ctl(ep, EPOLL_CTL_DEL, stalled->fd, NULL);
  }
  frames = 0;
  for (long i = 0; i < nconn; i++)
    cs[i].got = 0;
  handler = on_fan;
  begin();
  double t = now();
  long done = 0;
  while (done < pubtotal) {
    while (pubsent < pubtotal && pubsent - done < window) {
      pubt[pubsent] = now();
      wr(&cs[pubsent++ % publishers], frame, framelen);
    }
    loop(10);
    done = frames / readers;
    if (now() - t > 60) {
      fprintf(stderr, "timeout: %ld of %ld frames\n", frames, pubtotal * readers);
      exit(1);
    }
  }
  report(now() - t, frames);
}

static void in_rooms(long rounds) {
  openall();
  settle(0.5);
  frames = 0;
  handler = on_room;
  begin();
  double t = now();
  for (long r = 0; r < rounds; r++) {
    round_at = now();
    for (long i = 0; i < rooms; i++)
      wr(&cs[i], frame, framelen);
    while (frames < (r + 1) * nconn) {
      loop(10);
      if (now() - t > 60) {
        fprintf(stderr, "timeout: %ld frames\n", frames);
        exit(1);
      }
    }
  }
  report(now() - t, frames);
}

static void connects(long total) {
  long started = 0, seen = 0;
  onopen = cc_open;
  handler = cc_msg;
  begin();
  double t = now();
  for (long i = 0; i < nconn && started < total; i++, started++) {
    cs[i].t0[0] = now();
    dial(&cs[i]);
  }
  while (closed_ < total && now() - t < 60) {
    loop(10);
    if (closed_ == seen)
      continue;
    seen = closed_;
    for (long i = 0; i < nconn; i++) {
      if (cs[i].state != 9)
        continue;
      cs[i].state = 8;
      if (started < total) {
        double at = now();
        dial(&cs[i]);
        cs[i].t0[0] = at;
        started++;
      }
    }
  }
  report(now() - t, closed_);
}

static void idle(double seconds) {
  begin();
  double t = now();
  openall();
  settle(seconds);
  report(now() - t, opened - closed_);
}

int main(int ac, char **av) {
  if (ac < 7) {
    fprintf(stderr, "usage: see the head of wsload.c\n");
    return 2;
  }
  const char *mode = av[1];
  host = av[2];
  port = atoi(av[3]);
  path = av[4];
  addr.sin_family = AF_INET;
  addr.sin_port = htons(port);
  inet_pton(AF_INET, host, &addr.sin_addr);
  ep = epoll_create1(0);
  caplat = 20000000;
  lat = malloc(caplat * sizeof *lat);
  handler = nop;
  nconn = atol(av[5]);
  publishers = getenv("WSPUB") ? atol(getenv("WSPUB")) : 1;
  cs = calloc(nconn, sizeof *cs);
  size = strcmp(mode, "idle") && strcmp(mode, "connect") ? atol(av[6]) : 16;
  if (getenv("WSTEXT"))
    size = strlen(getenv("WSTEXT"));
  mkframe(size, 1);
  if (!strcmp(mode, "echo") && ac > 7)
    echo(atof(av[7]), ac > 8 ? atoi(av[8]) : 1);
  else if (!strcmp(mode, "fanout") && ac > 7) {
    pubtotal = atol(av[7]);
    window = ac > 8 ? atol(av[8]) : 1;
    fanout();
  } else if (!strcmp(mode, "rooms") && ac > 8) {
    rooms = atol(av[7]);
    in_rooms(atol(av[8]));
  } else if (!strcmp(mode, "connect"))
    connects(atol(av[6]));
  else if (!strcmp(mode, "idle"))
    idle(atof(av[6]));
  else {
    fprintf(stderr, "unknown mode or too few arguments\n");
    return 2;
  }
  return 0;
}
