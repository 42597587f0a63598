// minimal epoll WebSocket echo/broadcast server: one read + one write syscall per message. No validation: the floor.
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
#include <unistd.h>
typedef struct {
  int fd, up, chat, idx;
  size_t len;
  uint8_t buf[8192];
} C;
static C *all[200000];
static int n;
int main(int ac, char **av) {
  int l = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, 4);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(av[1]))};
  a.sin_addr.s_addr = htonl(0x7f000001);
  bind(l, (void *)&a, sizeof a);
  listen(l, 4096);
  fcntl(l, F_SETFL, O_NONBLOCK);
  int ep = epoll_create1(0);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = 0};
  epoll_ctl(ep, EPOLL_CTL_ADD, l, &e);
  struct epoll_event ev[512];
  for (;;) {
    int k = epoll_wait(ep, ev, 512, -1);
    for (int i = 0; i < k; i++) {
      C *c = ev[i].data.ptr;
      if (!c) {
        int f;
        while ((f = accept4(l, 0, 0, SOCK_NONBLOCK)) >= 0) {
          setsockopt(f, IPPROTO_TCP, TCP_NODELAY, &one, 4);
          c = calloc(1, sizeof *c);
          c->fd = f;
          e.data.ptr = c;
          e.events = EPOLLIN;
          epoll_ctl(ep, EPOLL_CTL_ADD, f, &e);
        }
        continue;
      }
      ssize_t r = read(c->fd, c->buf + c->len, sizeof c->buf - c->len);
      if (r <= 0) {
        if (r < 0 && errno == EAGAIN)
          continue;
        close(c->fd);
        if (c->chat) {
          all[c->idx] = all[--n];
          all[c->idx]->idx = c->idx;
        }
        free(c);
        continue;
      }
      c->len += r;
      if (!c->up) {
        if (memmem(c->buf, c->len, "\r\n\r\n", 4)) {
          c->up = 1;
          c->chat = !memcmp(c->buf, "GET /chat", 9);
          if (c->chat) {
            c->idx = n;
            all[n++] = c;
          }
          c->len = 0;
          const char *h = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                          "Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
          write(c->fd, h, strlen(h));
        }
        continue;
      }
      size_t off = 0;
      while (c->len - off >= 6) {
        uint8_t *p = c->buf + off;
        size_t m = p[1] & 127, hh = 6, oh = 2;
        if (m == 126) {
          m = p[2] << 8 | p[3];
          hh = 8;
          oh = 4;
        }
        if (c->len - off < hh + m)
          break;
        uint8_t *mk = p + hh - 4, *d = p + hh;
        for (size_t j = 0; j < m; j++)
          d[j] ^= mk[j & 3];
        uint8_t *o = d - oh;
        o[0] = p[0];
        if (oh == 2)
          o[1] = m;
        else {
          o[1] = 126;
          o[2] = m >> 8;
          o[3] = m;
        }
        if (c->chat)
          for (int j = 0; j < n; j++)
            write(all[j]->fd, o, oh + m);
        else
          write(c->fd, o, oh + m);
        off += hh + m;
      }
      memmove(c->buf, c->buf + off, c->len - off);
      c->len -= off;
    }
  }
}
