/* Fuzz target of the compiled engine's way in: any octets are counted once, or come out as packets that may pass.
 *
 * tests/fuzz/fuzz_engine.py says the same of both engines from Python; here it is said of the C alone, with nothing in
 * between, some hundred times as often. By libFuzzer, until a finding or Ctrl-C:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -Iesp/native tests/fuzz/native_unprotect.c esp/native/[a-z]*.c -lcrypto
 *     ./a.out CORPUS
 *
 * With -DDRIVER it has a main() of its own for any compiler: `./a.out RUNS SEED FILE...` mutates the files by a seeded
 * generator. Input is as in fuzz_engine.py: steps of which SA (and whether its number comes again), outer traffic class,
 * octets of text, text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "engine.h"
#include "mss.h"

#define CHECK(what) ((what) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what), abort()))

enum { SAS = 4, AGAIN = 0x80, STEP = 4, LONGEST = 4096, FIRST_SPI = 0x1000 };

static const struct cipher_suite GCM = {CIPHER_AES_GCM, INTEGRITY_NONE, 16, 4, 0, 8, 16, 4};
static const struct cipher_suite CBC = {CIPHER_AES_CBC, INTEGRITY_HMAC_SHA2_256_128, 32, 0, 32, 16, 16, 16};
static const struct {
    const struct cipher_suite *suite;
    int version, esn, dscp_inward;
} KINDS[SAS] = {{&GCM, 4, 0, 0}, {&GCM, 6, 1, 0}, {&CBC, 4, 0, 1}, {&CBC, 6, 1, 0}};

/* One SA of the engine, and its peer's other end of it. */
struct end {
    struct inbound *sa;
    struct cipher *sealer;
    uint64_t sequence;
};

static uint64_t came_in;

/* 10.1.0.0/16 to 10.2.0.0/16, or 2001:db8:1::/48 to 2001:db8:2::/48; any protocol, any port. */
static void admit(struct box *box, int version) {
    const uint64_t four[2] = {0x0a010000, 0x0a020000}, six[2] = {0x20010db800010000, 0x20010db800020000};
    uint64_t(*sides[2])[2] = {box->source, box->destination};
    for (int side = 0; side < 2; side++) {
        sides[side][0][0] = version == 4 ? 0 : six[side];
        sides[side][0][1] = version == 4 ? four[side] : 0;
        sides[side][1][0] = version == 4 ? 0 : six[side] | 0xffff;
        sides[side][1][1] = version == 4 ? four[side] | 0xffff : UINT64_MAX;
    }
    const int32_t any[2] = {OPAQUE, 0xffff};
    memcpy(box->protocol, any, sizeof any);
    memcpy(box->source_port, any, sizeof any);
    memcpy(box->destination_port, any, sizeof any);
    box->version = version;
}

static struct end installed(struct engine *engine, int number, const struct policy *policy) {
    static uint8_t keymat[64], seed[32];
    struct end end = {calloc(1, sizeof *end.sa), NULL, 0};
    CHECK(end.sa);
    end.sa->spi = FIRST_SPI + number;
    end.sa->esn = KINDS[number].esn;
    end.sa->dscp_inward = KINDS[number].dscp_inward;
    end.sa->alarm_packets = end.sa->alarm_octets = end.sa->hard_packets = end.sa->hard_octets = UINT64_MAX;
    atomic_store(&end.sa->hard_at, 1e300);
    end.sa->policy = policy;
    end.sa->silence = silence_new(1);
    end.sa->window = window_new(64);
    admit(&end.sa->box, KINDS[number].version);
    end.sa->cipher = cipher_new(CIPHER_OPENSSL, KINDS[number].suite, keymat, end.sa->esn, 0, seed);
    end.sealer = cipher_new(CIPHER_OPENSSL, KINDS[number].suite, keymat, end.sa->esn, 1, seed);
    CHECK(end.sa->silence && end.sa->window && end.sa->cipher && end.sealer);
    CHECK(engine_add_inbound(engine, end.sa) == 0);
    return end;
}

static uint64_t dropped(const struct lane *lane) {
    uint64_t sum = 0;
    for (int reason = 0; reason < DROPS; reason++)
        sum += lane->drops[reason];
    return sum;
}

/* A copy of its own, so that AddressSanitizer sees each octet beyond it. */
static enum verdict give(struct lane *lane, const uint8_t *esp, size_t octets, uint8_t traffic_class,
                         struct inbound **sa, struct opened *opened, uint8_t **copy) {
    unsigned attention;
    *copy = malloc(octets ? octets : 1);
    CHECK(*copy);
    memcpy(*copy, esp, octets);
    return lane_open(lane, *copy, octets, traffic_class, 0.0, sa, opened, &attention);
}

/* Nobody has sealed it: it is counted once, or left to Python for its SPI, and nothing of any SA changes. */
static void check_hostile(struct lane *lane, const struct end ends[SAS], const uint8_t *esp, size_t octets,
                          uint8_t traffic_class) {
    uint64_t before = dropped(lane), packets[SAS], tops[SAS];
    for (int i = 0; i < SAS; i++) {
        packets[i] = ends[i].sa->packets;
        tops[i] = ends[i].sa->window->top;
    }
    struct inbound *sa = NULL;
    struct opened opened;
    uint8_t *copy;
    enum verdict verdict = give(lane, esp, octets, traffic_class, &sa, &opened, &copy);
    CHECK(verdict == DROPPED ? dropped(lane) == before + 1 : verdict == SLOW && dropped(lane) == before && !sa);
    for (int i = 0; i < SAS; i++)
        CHECK(ends[i].sa->packets == packets[i] && ends[i].sa->window->top == tops[i]);
    free(copy);
}

/* What comes out is whole, of its SA's traffic, and lies in what came; its number is taken once. */
static void check_authentic(struct lane *lane, const struct end *end, const uint8_t *esp, size_t octets,
                            uint8_t traffic_class, int again) {
    uint64_t before = dropped(lane), packets = end->sa->packets;
    struct inbound *sa = NULL;
    struct opened opened;
    uint8_t *copy;
    enum verdict verdict = give(lane, esp, octets, traffic_class, &sa, &opened, &copy);
    CHECK(verdict == OPEN || verdict == DROPPED);
    CHECK(sa == end->sa && end->sa->packets == packets + !again);
    CHECK(dropped(lane) == before + (verdict == DROPPED));
    if (verdict == OPEN) {
        struct flow flow;
        CHECK(!again);
        CHECK(opened.packet >= copy && opened.packet + opened.octets <= copy + octets);
        CHECK(flow_parse(opened.packet, opened.octets, &flow) == opened.octets);
        CHECK(box_match(&end->sa->box, &flow) == MATCH_YES);
        CHECK(!opened.unclamped || (is_syn(opened.packet, opened.octets) && !sa->policy->carriers[0]));
        came_in++;
    }
    free(copy);
}

/* One step: `text` as a datagram; sealed, and spoilt; sealed, and as it is. */
static void step(struct lane *lane, struct end ends[SAS], uint8_t which, uint8_t traffic_class, const uint8_t *text,
                 size_t octets) {
    uint8_t packet[SA_FRONT + LONGEST + SA_BACK] = {0};
    struct end *end = &ends[(which & ~AGAIN) % SAS];
    const struct cipher_suite *suite = &end->sealer->suite;
    size_t whole = (octets + suite->block - 1) / suite->block * suite->block, front = ESP_HEADER + suite->iv;
    int again = (which & AGAIN) && end->sequence;
    end->sequence += !again;
    put32(packet, end->sa->spi);
    put32(packet + 4, (uint32_t)end->sequence);
    memcpy(packet + front, text, octets);
    end->sealer->seal(end->sealer, packet, whole, end->sequence);
    size_t sealed = front + whole + suite->icv;
    check_hostile(lane, ends, text, octets, traffic_class);
    packet[sealed - 1] ^= 1;
    check_hostile(lane, ends, packet, sealed, traffic_class);
    packet[sealed - 1] ^= 1;
    if (whole)
        check_authentic(lane, end, packet, sealed, traffic_class, again);
    else
        check_hostile(lane, ends, packet, sealed, traffic_class); /* shorter than any trailer */
    end->sequence -= !whole && !again;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    /* SYNs are lowered to what goes through the other way, where a lane knows that. */
    struct engine *engine = engine_new(1, 1280);
    struct outbound *back = outbound_new(0, 1);
    CHECK(engine && back);
    back->largest = 600;
    const struct policy policies[2] = {{.carriers = {back}}, {.action = ACTION_PROTECT}};
    struct end ends[SAS];
    for (int i = 0; i < SAS; i++)
        ends[i] = installed(engine, i, &policies[i / 2]);
    while (size >= STEP) {
        size_t text = get16(data + 2);
        text = text > size - STEP ? size - STEP : text;
        text = text > LONGEST ? LONGEST : text;
        step(&engine->lane[0], ends, data[0], data[1], data + STEP, text);
        data += STEP + text;
        size -= STEP + text;
    }
    for (int i = 0; i < SAS; i++) {
        engine_remove_inbound(engine, ends[i].sa);
        inbound_free(ends[i].sa);
        cipher_free(ends[i].sealer);
    }
    outbound_free(back);
    engine_free(engine);
    return 0;
}

#ifdef DRIVER

#include "random_below.h"

/* A few octets overwritten, cut out, or doubled. */
static size_t mutate(uint8_t *data, size_t size, size_t room) {
    static const uint8_t TELLING[] = {0, 1, 4, 6, 0x45, 0x60, 0x7f, 0x80, 0xff};
    for (uint64_t left = random_below(6); left && size > STEP; left--) {
        size_t at = random_below(size), some = 1 + random_below(16);
        some = some > size - at ? size - at : some;
        switch (random_below(4)) {
        case 0:
            data[at] ^= 1 << random_below(8);
            break;
        case 1:
            data[at] = TELLING[random_below(sizeof TELLING)];
            break;
        case 2:
            memmove(data + at, data + at + some, size - at - some);
            size -= some;
            break;
        default:
            if (size + some > room)
                break;
            memmove(data + at + some, data + at, size - at);
            size += some;
        }
    }
    return size;
}

static size_t load(const char *name, uint8_t *into, size_t room) {
    FILE *file = fopen(name, "rb");
    CHECK(file);
    size_t size = fread(into, 1, room, file);
    fclose(file);
    return size;
}

int main(int count, char **words) {
    static uint8_t seeds[64][1 << 13], data[1 << 13];
    size_t sizes[64], files = 0;
    CHECK(count > 3 && count <= 3 + 64);
    for (int i = 3; i < count; i++, files++) {
        sizes[files] = load(words[i], seeds[files], sizeof seeds[files]);
        LLVMFuzzerTestOneInput(seeds[files], sizes[files]);
    }
    uint64_t as_they_are = came_in;
    state = strtoull(words[2], NULL, 10) | 1;
    uint64_t runs = strtoull(words[1], NULL, 10);
    for (uint64_t run = 0; run < runs; run++) {
        size_t seed = random_below(files);
        memcpy(data, seeds[seed], sizes[seed]);
        LLVMFuzzerTestOneInput(data, mutate(data, sizes[seed], sizeof data));
    }
    printf("%llu of the files as they are, %llu of %llu mutated\n", (unsigned long long)as_they_are,
           (unsigned long long)(came_in - as_they_are), (unsigned long long)runs);
    return 0;
}

#endif
