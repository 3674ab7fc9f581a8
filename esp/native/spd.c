#include "spd.h"

#include <string.h>

struct policy *spd_search(const struct spd *spd, const struct flow *flow) {
    /* A packet that does not show its ports passes an entry that asks for them by, as RFC 4301 §4.4.1.1 has it, but then
     * only one that asks for OPAQUE can decide. One behind it that asks for nothing could be BYPASS. */
    int uncertain = 0;
    for (size_t i = 0; i < spd->count; i++) {
        const struct rule *rule = &spd->rules[i];
        enum match match = box_match(&rule->box, flow);
        if (match == MATCH_YES && (rule->box.names_opaque || !uncertain))
            return rule->policy;
        uncertain |= match == MATCH_UNKNOWN;
    }
    return NULL;
}

static size_t place_of(const struct flow *flow) {
    const uint64_t odd = 0x9e3779b97f4a7c15ull; /* 2^64 over the golden ratio: spreads what differs in few bits */
    uint64_t mixed = flow->addresses[0] ^ (uint64_t)(uint32_t)flow->source_port << 32 ^ (uint32_t)flow->destination_port;
    mixed = (mixed ^ mixed >> 29) * odd + flow->addresses[1];
    mixed = (mixed ^ mixed >> 32) * odd + flow->addresses[2];
    mixed = (mixed ^ mixed >> 29) * odd + flow->addresses[3] + (uint16_t)flow->protocol;
    mixed = (mixed ^ mixed >> 32) * odd;
    return mixed >> 51; /* 13 bits: DECISIONS */
}

struct policy *spd_lookup(const struct spd *spd, struct decision decisions[DECISIONS], const struct flow *flow) {
    struct decision *decision = &decisions[place_of(flow)];
    if (decision->generation != spd->generation || memcmp(&decision->flow, flow, sizeof *flow) != 0) {
        decision->policy = spd_search(spd, flow);
        decision->flow = *flow;
        decision->generation = spd->generation;
    }
    return decision->policy;
}
