/* A server of the old days: it waits with select(), for which there is no descriptor above 1023. */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
  int listener = socket(AF_INET, SOCK_STREAM, 0), highest = listener;
  fd_set open;

  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 16)) return 1;
  FD_ZERO(&open);
  FD_SET(listener, &open);
  for (;;) {
    fd_set ready = open;
    if (select(highest + 1, &ready, NULL, NULL, NULL) < 0) return 1;
    if (!FD_ISSET(listener, &ready)) continue;
    int client = accept(listener, NULL, NULL);
    if (client < 0 || client >= FD_SETSIZE) continue;
    FD_SET(client, &open);
    if (client > highest) highest = client;
  }
}
