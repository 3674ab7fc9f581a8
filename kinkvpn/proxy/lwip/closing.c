#include "closing.h"

#include <stdlib.h>

#include "flow.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/sys.h"
#include "lwip/tcp.h"

enum {
    ARGUMENT = 0, /* of LWIP_TCP_PCB_NUM_EXT_ARGS */
    WAITING = 4,  /* in TIME-WAIT, for each flow that there may be: lwIP would have any number, and walks them all */
};

struct closing {
    struct stack *stack;
    struct tcp_pcb *tcp;
    struct closing *next, **link; /* the oldest is the first */
    uint64_t window;
    uint32_t since; /* sys_now() */
};

static void forget(struct closing *closing) {
    struct stack *stack = closing->stack;
    *closing->link = closing->next;
    if (closing->next != NULL)
        closing->next->link = closing->link;
    else
        stack->last_closing = closing->link;
    stack->windows += closing->window;
    stack->counters.closing--;
    free(closing);
}

/* lwIP has freed it. */
static void on_freed(u8_t id, void *closing) {
    (void)id;
    forget(closing);
}

static const struct tcp_ext_arg_callbacks CALLBACKS = {.destroy = on_freed}, NONE;

static void give_up(struct closing *closing) {
    closing->stack->counters.given_up++;
    tcp_abort(closing->tcp);
}

/* In TIME-WAIT it has nothing to send, and a time of its own. */
static void release(struct closing *closing) {
    tcp_ext_arg_set_callbacks(closing->tcp, ARGUMENT, &NONE);
    forget(closing);
}

/* The newest are the first of them. */
static void forget_waiting(const struct stack *stack) {
    unsigned count = 0;
    for (struct tcp_pcb *at = tcp_tw_pcbs, *next; at != NULL; at = next) {
        next = at->next;
        if (++count > WAITING * stack->flows)
            tcp_abort(at); /* which says nothing of it */
    }
}

void closing_check(struct stack *stack) {
    uint32_t now = sys_now();
    forget_waiting(stack);
    for (struct closing *at = stack->closing, *next; at != NULL; at = next) {
        next = at->next;
        if (at->tcp->state == TIME_WAIT)
            release(at);
        else if (now - at->since >= stack->patience)
            give_up(at);
    }
}

void closing_add(struct stack *stack, struct tcp_pcb *tcp, uint64_t window) {
    if (stack->counters.closing >= stack->flows)
        closing_check(stack);
    if (stack->counters.closing >= stack->flows)
        give_up(stack->closing);
    struct closing *closing = malloc(sizeof *closing);
    if (closing == NULL) { /* we may be called by lwIP for it, and so cannot abort it */
        stack->windows += window;
        return;
    }
    *closing = (struct closing){stack, tcp, NULL, stack->last_closing, window, sys_now()};
    *stack->last_closing = closing;
    stack->last_closing = &closing->next;
    stack->counters.closing++;
    tcp_ext_arg_set(tcp, ARGUMENT, closing);
    tcp_ext_arg_set_callbacks(tcp, ARGUMENT, &CALLBACKS);
}

void closing_end_all(struct stack *stack) {
    while (stack->closing != NULL)
        tcp_abort(stack->closing->tcp);
}
