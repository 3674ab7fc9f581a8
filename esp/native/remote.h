/* Where datagrams go to and come from: esp.sa.Endpoint as a socket has it. */
#ifndef ESP_NATIVE_REMOTE_H
#define ESP_NATIVE_REMOTE_H

#include <netinet/in.h>
#include <stddef.h>

/* Never changed: another takes its place. */
struct remote {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
    socklen_t octets;
};

/* address: text form, of a link-local one with its interface ("fe80::1%2", RFC 4007 §11). port: 0 without UDP. NULL where it is no
 * address, or there is no memory. */
struct remote *remote_new(const char *address, int port);
/* Whether they are the same address and port. */
int remote_equal(const struct remote *one, const struct remote *other);
/* The text form of its address, in `text`; its port. */
#define REMOTE_TEXT (INET6_ADDRSTRLEN + 12)
int remote_text(const struct remote *remote, char text[REMOTE_TEXT]);

#endif
