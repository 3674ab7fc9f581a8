"""What we use of krb5.h and profile.h of MIT krb5 1.18 to 1.22, as cffi reads it.

A test compiles it against the headers that are installed: structures, prototypes and constants.
"""

from __future__ import annotations

import re
from typing import Final

CDEF: Final = r"""
typedef int32_t krb5_error_code; typedef int32_t krb5_int32; typedef int32_t krb5_flags; typedef int32_t krb5_timestamp;
typedef int32_t krb5_enctype; typedef int32_t krb5_cksumtype; typedef int32_t krb5_keyusage; typedef int32_t krb5_magic;
typedef unsigned int krb5_boolean; typedef unsigned int krb5_kvno; typedef uint32_t krb5_ui_4;
typedef uint8_t krb5_octet; typedef int32_t krb5_authdatatype; typedef struct krb5_pac_data *krb5_pac;
typedef struct _krb5_context *krb5_context; typedef struct _krb5_auth_context *krb5_auth_context;
typedef struct _krb5_kt *krb5_keytab; typedef struct _krb5_ccache *krb5_ccache; typedef struct krb5_key_st *krb5_key;
typedef struct _profile_t *profile_t; typedef void *krb5_kt_cursor; typedef void *krb5_cc_cursor;

typedef struct { krb5_magic magic; unsigned int length; char *data; } krb5_data;
typedef struct { krb5_magic magic; krb5_enctype enctype; unsigned int length; krb5_octet *contents; } krb5_keyblock;
typedef struct { krb5_magic magic; krb5_cksumtype checksum_type; unsigned int length; krb5_octet *contents; }
    krb5_checksum;
typedef struct { krb5_magic magic; krb5_enctype enctype; krb5_kvno kvno; krb5_data ciphertext; } krb5_enc_data;
typedef struct { krb5_magic magic; krb5_data realm; krb5_data *data; krb5_int32 length; krb5_int32 type; }
    krb5_principal_data;
typedef krb5_principal_data *krb5_principal; typedef const krb5_principal_data *krb5_const_principal;
typedef struct { krb5_timestamp authtime, starttime, endtime, renew_till; } krb5_ticket_times;
typedef struct { krb5_magic magic; krb5_principal client, server; krb5_keyblock keyblock; krb5_ticket_times times;
    krb5_boolean is_skey; krb5_flags ticket_flags; void **addresses; krb5_data ticket, second_ticket; void **authdata; }
    krb5_creds;
typedef struct { krb5_magic magic; krb5_authdatatype ad_type; unsigned int length; krb5_octet *contents; }
    krb5_authdata;
typedef struct { krb5_magic magic; uint8_t tr_type; krb5_data tr_contents; } krb5_transited;
typedef struct { krb5_magic magic; krb5_flags flags; krb5_keyblock *session; krb5_principal client;
    krb5_transited transited; krb5_ticket_times times; void **caddrs; krb5_authdata **authorization_data; }
    krb5_enc_tkt_part;
typedef struct { krb5_magic magic; krb5_principal server; krb5_enc_data enc_part; krb5_enc_tkt_part *enc_part2; }
    krb5_ticket;
typedef struct { krb5_magic magic; krb5_timestamp ctime; krb5_int32 cusec; krb5_keyblock *subkey;
    krb5_ui_4 seq_number; } krb5_ap_rep_enc_part;
typedef struct { krb5_magic magic; krb5_principal client; krb5_checksum *checksum; krb5_int32 cusec;
    krb5_timestamp ctime; krb5_keyblock *subkey; krb5_ui_4 seq_number; void **authorization_data; } krb5_authenticator;
typedef struct { krb5_magic magic; krb5_timestamp ctime; krb5_int32 cusec, susec; krb5_timestamp stime; krb5_ui_4 error;
    krb5_principal client, server; krb5_data text, e_data; } krb5_error;
typedef struct { krb5_magic magic; krb5_principal principal; krb5_timestamp timestamp; krb5_kvno vno;
    krb5_keyblock key; } krb5_keytab_entry;

krb5_error_code krb5_init_context_profile(profile_t, krb5_flags, krb5_context *);
void krb5_free_context(krb5_context);
krb5_error_code krb5_get_default_config_files(char ***); void krb5_free_config_files(char **);
krb5_error_code krb5_get_profile(krb5_context, profile_t *);
long profile_init(const char **, profile_t *); void profile_abandon(profile_t);
long profile_get_values(profile_t, const char *const *, char ***); void profile_free_list(char **);
const char *krb5_get_error_message(krb5_context, krb5_error_code);
void krb5_free_error_message(krb5_context, const char *);
krb5_error_code krb5_get_permitted_enctypes(krb5_context, krb5_enctype **);
void krb5_free_enctypes(krb5_context, krb5_enctype *);
krb5_error_code krb5_us_timeofday(krb5_context, krb5_timestamp *, krb5_int32 *);
krb5_error_code krb5_set_real_time(krb5_context, krb5_timestamp, krb5_int32);
krb5_error_code krb5_get_time_offsets(krb5_context, krb5_timestamp *, krb5_int32 *);

krb5_error_code krb5_parse_name(krb5_context, const char *, krb5_principal *);
krb5_error_code krb5_unparse_name(krb5_context, krb5_principal, char **);
void krb5_free_unparsed_name(krb5_context, char *); void krb5_free_principal(krb5_context, krb5_principal);

krb5_error_code krb5_sname_to_principal(krb5_context, const char *, const char *, krb5_int32, krb5_principal *);
krb5_error_code krb5_get_host_realm(krb5_context, const char *, char ***);
krb5_error_code krb5_free_host_realm(krb5_context, char *const *);

krb5_error_code krb5_kt_resolve(krb5_context, const char *, krb5_keytab *);
krb5_error_code krb5_kt_close(krb5_context, krb5_keytab);
krb5_error_code krb5_kt_add_entry(krb5_context, krb5_keytab, krb5_keytab_entry *);
krb5_error_code krb5_kt_get_entry(krb5_context, krb5_keytab, krb5_const_principal, krb5_kvno, krb5_enctype,
    krb5_keytab_entry *);
krb5_error_code krb5_kt_start_seq_get(krb5_context, krb5_keytab, krb5_kt_cursor *);
krb5_error_code krb5_kt_next_entry(krb5_context, krb5_keytab, krb5_keytab_entry *, krb5_kt_cursor *);
krb5_error_code krb5_kt_end_seq_get(krb5_context, krb5_keytab, krb5_kt_cursor *);
krb5_error_code krb5_free_keytab_entry_contents(krb5_context, krb5_keytab_entry *);

const char *krb5_cc_default_name(krb5_context);
krb5_error_code krb5_cc_resolve(krb5_context, const char *, krb5_ccache *);
krb5_error_code krb5_cc_close(krb5_context, krb5_ccache); krb5_error_code krb5_cc_destroy(krb5_context, krb5_ccache);
krb5_error_code krb5_cc_get_principal(krb5_context, krb5_ccache, krb5_principal *);
krb5_error_code krb5_cc_initialize(krb5_context, krb5_ccache, krb5_principal);
krb5_error_code krb5_cc_store_cred(krb5_context, krb5_ccache, krb5_creds *);
krb5_error_code krb5_cc_start_seq_get(krb5_context, krb5_ccache, krb5_cc_cursor *);
krb5_error_code krb5_cc_next_cred(krb5_context, krb5_ccache, krb5_cc_cursor *, krb5_creds *);
krb5_error_code krb5_cc_end_seq_get(krb5_context, krb5_ccache, krb5_cc_cursor *);
krb5_error_code krb5_get_credentials(krb5_context, krb5_flags, krb5_ccache, krb5_creds *, krb5_creds **);
krb5_error_code krb5_get_renewed_creds(krb5_context, krb5_creds *, krb5_principal, krb5_ccache, const char *);
void krb5_free_cred_contents(krb5_context, krb5_creds *);
void krb5_free_creds(krb5_context, krb5_creds *);

krb5_error_code krb5_auth_con_init(krb5_context, krb5_auth_context *);
krb5_error_code krb5_auth_con_free(krb5_context, krb5_auth_context);
krb5_error_code krb5_auth_con_setflags(krb5_context, krb5_auth_context, krb5_int32);
krb5_error_code krb5_auth_con_getkey_k(krb5_context, krb5_auth_context, krb5_key *);
krb5_error_code krb5_auth_con_setuseruserkey(krb5_context, krb5_auth_context, krb5_keyblock *);
krb5_error_code krb5_auth_con_getauthenticator(krb5_context, krb5_auth_context, krb5_authenticator **);
void krb5_free_authenticator(krb5_context, krb5_authenticator *);
krb5_error_code krb5_mk_req_extended(krb5_context, krb5_auth_context *, krb5_flags, krb5_data *, krb5_creds *,
    krb5_data *);
krb5_error_code krb5_rd_req(krb5_context, krb5_auth_context *, const krb5_data *, krb5_principal, krb5_keytab,
    krb5_flags *, krb5_ticket **);
krb5_error_code krb5_mk_rep(krb5_context, krb5_auth_context, krb5_data *);
krb5_error_code krb5_rd_rep(krb5_context, krb5_auth_context, const krb5_data *, krb5_ap_rep_enc_part **);
krb5_error_code krb5_mk_error(krb5_context, const krb5_error *, krb5_data *);
krb5_error_code krb5_rd_error(krb5_context, const krb5_data *, krb5_error **);
void krb5_free_error(krb5_context, krb5_error *); void krb5_free_ticket(krb5_context, krb5_ticket *);
krb5_error_code krb5_decode_ticket(const krb5_data *, krb5_ticket **);
void krb5_free_ap_rep_enc_part(krb5_context, krb5_ap_rep_enc_part *);
void krb5_free_data_contents(krb5_context, krb5_data *); void krb5_free_keyblock(krb5_context, krb5_keyblock *);
void krb5_free_checksum_contents(krb5_context, krb5_checksum *);

krb5_error_code krb5_find_authdata(krb5_context, krb5_authdata *const *, krb5_authdata *const *, krb5_authdatatype,
    krb5_authdata ***);
void krb5_free_authdata(krb5_context, krb5_authdata **);
krb5_error_code krb5_pac_parse(krb5_context, const void *, size_t, krb5_pac *);
void krb5_pac_free(krb5_context, krb5_pac);
krb5_error_code krb5_pac_get_buffer(krb5_context, krb5_pac, krb5_ui_4, krb5_data *);
krb5_error_code krb5_pac_verify(krb5_context, const krb5_pac, krb5_timestamp, krb5_const_principal,
    const krb5_keyblock *, const krb5_keyblock *);

krb5_error_code krb5_k_create_key(krb5_context, const krb5_keyblock *, krb5_key *);
void krb5_k_free_key(krb5_context, krb5_key); krb5_enctype krb5_k_key_enctype(krb5_context, krb5_key);
krb5_error_code krb5_k_key_keyblock(krb5_context, krb5_key, krb5_keyblock **);
krb5_error_code krb5_k_make_checksum(krb5_context, krb5_cksumtype, krb5_key, krb5_keyusage, const krb5_data *,
    krb5_checksum *);
krb5_error_code krb5_k_encrypt(krb5_context, krb5_key, krb5_keyusage, const krb5_data *, const krb5_data *,
    krb5_enc_data *);
krb5_error_code krb5_k_decrypt(krb5_context, krb5_key, krb5_keyusage, const krb5_data *, const krb5_enc_data *,
    krb5_data *);
krb5_error_code krb5_k_prf(krb5_context, krb5_key, krb5_data *, krb5_data *);
krb5_error_code krb5_c_encrypt_length(krb5_context, krb5_enctype, size_t, size_t *);
krb5_error_code krb5_c_prf_length(krb5_context, krb5_enctype, size_t *);
"""

# Every function that is declared above.
FUNCTIONS: Final = re.findall(r"\b((?:krb5|profile)_\w+)\(", CDEF)
