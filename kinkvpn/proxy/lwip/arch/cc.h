/* What lwIP has to know of the compiler, and of us. */
#ifndef KINKVPN_LWIP_CC_H
#define KINKVPN_LWIP_CC_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>


#define LWIP_PLATFORM_ASSERT(text) \
    do { \
        fprintf(stderr, "lwip: %s\n", text); \
        abort(); \
    } while (0)
#define LWIP_PLATFORM_DIAG(what) do { } while (0)

uint32_t stack_random(void);
uint16_t stack_checksum(const void *octets, int count);

#define LWIP_RAND() stack_random()
#define LWIP_CHKSUM stack_checksum
#define LWIP_TIMEVAL_PRIVATE 0
#define LWIP_ERRNO_STDINCLUDE 1

#endif
