/* Intel's ipsec-mb, found while running. */
#include "ipsec_mb.h"

#ifndef ESP_NO_IPSEC_MB

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

static struct {
    pthread_once_t once;
    IMB_MGR *manager;
    char name[64];
} found = {.once = PTHREAD_ONCE_INIT};

static const char *architecture_of(const IMB_MGR *manager) {
    switch (manager->used_arch) {
    case IMB_ARCH_SSE:
        return "sse";
    case IMB_ARCH_AVX:
        return "avx";
    case IMB_ARCH_AVX2:
        return "avx2";
    case IMB_ARCH_AVX512:
        return "avx512";
    default: /* AES without the processor's own instructions is slower than OpenSSL's */
        return NULL;
    }
}

/* Within a major version what is new comes behind what was there, so a later one than that of the header will do. */
static int fits(unsigned version) { return version >= IMB_VERSION_NUM && version >> 16 == IMB_VERSION_NUM >> 16; }

static void find(void) {
    void *library = dlopen("libIPSec_MB.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return;
    unsigned (*version)(void) = dlsym(library, "imb_get_version");
    const char *(*version_name)(void) = dlsym(library, "imb_get_version_str");
    IMB_MGR *(*allocate)(uint64_t) = dlsym(library, "alloc_mb_mgr");
    void (*initialise)(IMB_MGR *, IMB_ARCH *) = dlsym(library, "init_mb_mgr_auto");
    if (!version || !version_name || !allocate || !initialise || !fits(version()))
        return;
    IMB_MGR *manager = allocate(0);
    if (!manager)
        return;
    initialise(manager, NULL);
    const char *architecture = architecture_of(manager);
    /* It tries its algorithms on known answers before it says so. */
    if (!architecture || !(manager->features & IMB_FEATURE_SELF_TEST_PASS))
        return;
    snprintf(found.name, sizeof found.name, "ipsec-mb %s (%s)", version_name(), architecture);
    found.manager = manager;
}

IMB_MGR *ipsec_mb(void) {
    pthread_once(&found.once, find);
    return found.manager;
}

const char *ipsec_mb_name(void) { return ipsec_mb() ? found.name : NULL; }

#endif
