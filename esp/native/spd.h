/* The SPD, outbound: which policy decides for a flow, and which SA carries its traffic now (RFC 4301 §4.4.1, §5.1).
 *
 * Policies are places that stay where they are as long as the engine lives; the list of them is made anew when it
 * changes, and the old one freed when no lane can be in it any more (engine.h).
 */
#ifndef ESP_NATIVE_SPD_H
#define ESP_NATIVE_SPD_H

#include <stdatomic.h>
#include <stddef.h>

#include "flow.h"
#include "sa.h"

enum action { ACTION_PROTECT, ACTION_BYPASS, ACTION_DISCARD };

#define MAX_LANES 16

/* What a policy does, and which SA carries its traffic for each lane: one of the lane's own, or one that all may use
 * (RFC 9611 §4). NULL where there is none, or one that the reference engine runs. */
struct policy {
    int action;
    _Atomic(struct outbound *) carriers[MAX_LANES];
};

/* One selector of it. */
struct rule {
    struct box box;
    struct policy *policy;
};

struct spd {
    size_t count;
    int by_ports; /* some policy asks for ports: later fragments need to be told whose they are (RFC 4301 §7.3) */
    uint64_t generation;
    struct rule rules[]; /* the first that matches decides */
};

/* NULL where none is known to decide. */
struct policy *spd_search(const struct spd *spd, const struct flow *flow);

/* Flows that have been decided on, of one lane; a flow that is not here pays for the search, and takes the place of
 * another. */
#define DECISIONS 8192
struct decision {
    struct flow flow;
    uint64_t generation;
    struct policy *policy;
};
struct policy *spd_lookup(const struct spd *spd, struct decision decisions[DECISIONS], const struct flow *flow);

#endif
