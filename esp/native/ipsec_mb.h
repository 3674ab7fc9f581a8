/* Intel's ipsec-mb, found while running: an installation without it just works. */
#ifndef ESP_NATIVE_IPSEC_MB_H
#define ESP_NATIVE_IPSEC_MB_H

#if !defined(ESP_NO_IPSEC_MB) && defined(__x86_64__) && __has_include(<intel-ipsec-mb.h>)

#include <intel-ipsec-mb.h>

/* NULL where it is not there or not for this processor. All threads have this one: what they call of it keeps nothing
 * there. */
IMB_MGR *ipsec_mb(void);
const char *ipsec_mb_name(void);

#elif !defined(ESP_NO_IPSEC_MB)

#define ESP_NO_IPSEC_MB

#endif
#endif
