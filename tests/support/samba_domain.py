"""Runs under Debian's own Python, which has samba's modules: makes a domain, its computers and their keytabs.

/usr/bin/python3 -I samba_domain.py SMB_CONF provision REALM
/usr/bin/python3 -I samba_domain.py SMB_CONF computer SPN REALM GROUPS FLAGS
/usr/bin/python3 -I samba_domain.py SMB_CONF keytab SPN PATH
"""

import logging
import sys

import samba.dckeytab  # gives Net its export_keytab
from samba.auth import system_session
from samba.credentials import DONT_USE_KERBEROS, Credentials
from samba.dsdb import DS_DOMAIN_FUNCTION_2008_R2
from samba.net import Net
from samba.param import LoadParm
from samba.provision import provision
from samba.samdb import SamDB

# MS-KILE §2.2.7: AES128 and AES256, nothing else.
AES_ONLY = "24"
# MS-ADTS §2.2.16: WORKSTATION_TRUST_ACCOUNT.
WORKSTATION = 0x1000


def make_domain(conf: str, parameters: LoadParm, realm: str) -> None:
    log = logging.getLogger("provision")
    log.addHandler(logging.NullHandler())
    provision(
        log,
        system_session(parameters),
        smbconf=conf,
        realm=realm,
        domain=realm.partition(".")[0],
        adminpass=samba.generate_random_password(40, 60),
        serverrole="active directory domain controller",
        dns_backend="NONE",
        lp=parameters,
        hostname="dc",
        hostip="127.0.0.1",
        skip_sysvolacl=True,
        use_ntvfs=False,
        batch_mode=True,
        dom_for_fun_level=DS_DOMAIN_FUNCTION_2008_R2,
    )


def add_computer(parameters: LoadParm, spn: str, realm: str, groups: int, flags: int) -> None:
    """A computer account that may log in by its SPN, member of so many groups (each adds its SID to the PAC)."""
    database = SamDB(url=parameters.samdb_url(), session_info=system_session(parameters), lp=parameters)
    name = spn.partition("/")[2].partition(".")[0]
    account = f"CN={name},CN=Computers,{database.domain_dn()}"
    database.transaction_start()
    database.add(
        {
            "dn": account,
            "objectClass": "computer",
            "sAMAccountName": f"{name}$",
            "userAccountControl": str(WORKSTATION | flags),
            "servicePrincipalName": spn,
            "userPrincipalName": f"{spn}@{realm}",  # an SPN alone is nobody's name to log in by
            "msDS-SupportedEncryptionTypes": AES_ONLY,
        }
    )
    for number in range(groups):
        group = f"group-{name}-{number}"
        dn = f"CN={group},CN=Users,{database.domain_dn()}"
        database.add({"dn": dn, "objectClass": "group", "sAMAccountName": group, "member": account})
    database.setpassword(f"(distinguishedName={account})", samba.generate_random_password(40, 60))
    database.transaction_commit()


def main(conf: str, command: str, *arguments: str) -> None:
    parameters = LoadParm()
    parameters.load(conf)
    if command == "provision":
        make_domain(conf, parameters, *arguments)
    elif command == "computer":
        spn, realm, groups, flags = arguments
        add_computer(parameters, spn, realm, int(groups), int(flags))
    else:
        spn, path = arguments
        credentials = Credentials()
        credentials.set_kerberos_state(DONT_USE_KERBEROS)
        Net(credentials, parameters).export_keytab(keytab=path, principal=spn)


main(*sys.argv[1:])
