#include "remote.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct remote *remote_new(const char *address, int port) {
    char host[REMOTE_TEXT];
    const char *scope = strchr(address, '%');
    size_t octets = scope == NULL ? strlen(address) : (size_t)(scope - address);
    if (octets >= sizeof host || port < 0 || port > 65535)
        return NULL;
    memcpy(host, address, octets);
    host[octets] = '\0';
    struct remote *remote = calloc(1, sizeof *remote);
    if (remote == NULL)
        return NULL;
    if (inet_pton(AF_INET, host, &remote->address.v4.sin_addr) == 1) {
        remote->address.v4.sin_family = AF_INET;
        remote->address.v4.sin_port = htons((uint16_t)port);
        remote->octets = sizeof remote->address.v4;
        return remote;
    }
    if (inet_pton(AF_INET6, host, &remote->address.v6.sin6_addr) == 1) {
        remote->address.v6.sin6_family = AF_INET6;
        remote->address.v6.sin6_port = htons((uint16_t)port);
        remote->octets = sizeof remote->address.v6;
        if (scope != NULL) {
            unsigned index = (unsigned)strtoul(scope + 1, NULL, 10);
            remote->address.v6.sin6_scope_id = index ? index : if_nametoindex(scope + 1);
        }
        return remote;
    }
    free(remote);
    return NULL;
}

int remote_equal(const struct remote *one, const struct remote *other) {
    if (one->address.any.sa_family != other->address.any.sa_family)
        return 0;
    if (one->address.any.sa_family == AF_INET)
        return one->address.v4.sin_port == other->address.v4.sin_port &&
               one->address.v4.sin_addr.s_addr == other->address.v4.sin_addr.s_addr;
    return one->address.v6.sin6_port == other->address.v6.sin6_port &&
           one->address.v6.sin6_scope_id == other->address.v6.sin6_scope_id &&
           memcmp(&one->address.v6.sin6_addr, &other->address.v6.sin6_addr, sizeof one->address.v6.sin6_addr) == 0;
}

int remote_text(const struct remote *remote, char text[REMOTE_TEXT]) {
    text[0] = '\0';
    if (remote->address.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &remote->address.v4.sin_addr, text, REMOTE_TEXT);
        return ntohs(remote->address.v4.sin_port);
    }
    inet_ntop(AF_INET6, &remote->address.v6.sin6_addr, text, REMOTE_TEXT);
    if (remote->address.v6.sin6_scope_id)
        snprintf(text + strlen(text), REMOTE_TEXT - strlen(text), "%%%u", remote->address.v6.sin6_scope_id);
    return ntohs(remote->address.v6.sin6_port);
}
