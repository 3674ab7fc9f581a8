"""Runs under Debian's own Python, which has samba's modules: makes a domain, its computers and their keytabs.

/usr/bin/python3 -I samba_domain.py SMB_CONF provision REALM PASSWORD
/usr/bin/python3 -I samba_domain.py SMB_CONF computer SPN REALM GROUPS FLAGS
/usr/bin/python3 -I samba_domain.py SMB_CONF keytab SPN PATH
/usr/bin/python3 -I samba_domain.py SMB_CONF person NAME PASSWORD GROUP...
/usr/bin/python3 -I samba_domain.py SMB_CONF sid GROUP
"""

import logging
import sys

import samba.dckeytab  # gives Net its export_keytab
from samba.auth import system_session
from samba.credentials import DONT_USE_KERBEROS, Credentials
from samba.dcerpc.security import dom_sid
from samba.dsdb import DS_DOMAIN_FUNCTION_2008_R2
from samba.ndr import ndr_unpack
from samba.net import Net
from samba.param import LoadParm
from samba.provision import provision
from samba.samdb import SamDB

# MS-KILE §2.2.7: AES128 and AES256, nothing else.
AES_ONLY = "24"
# MS-ADTS §2.2.16: WORKSTATION_TRUST_ACCOUNT.
WORKSTATION = 0x1000


def make_domain(conf: str, parameters: LoadParm, realm: str, password: str) -> None:
    log = logging.getLogger("provision")
    log.addHandler(logging.NullHandler())
    provision(
        log,
        system_session(parameters),
        smbconf=conf,
        realm=realm,
        domain=realm.partition(".")[0],
        adminpass=password or samba.generate_random_password(40, 60),
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


def add_person(parameters: LoadParm, name: str, password: str, *groups: str) -> None:
    """A user account, member of ``groups``, which are made."""
    database = SamDB(url=parameters.samdb_url(), session_info=system_session(parameters), lp=parameters)
    database.newuser(name, password)
    account = f"CN={name},CN=Users,{database.domain_dn()}"
    database.modify_ldif(
        f"dn: {account}\nchangetype: modify\nreplace: msDS-SupportedEncryptionTypes\n"
        f"msDS-SupportedEncryptionTypes: {AES_ONLY}\n"
    )
    database.setpassword(f"(distinguishedName={account})", password)
    for group in groups:
        dn = f"CN={group},CN=Users,{database.domain_dn()}"
        database.add({"dn": dn, "objectClass": "group", "sAMAccountName": group, "member": account})


def show_sid(parameters: LoadParm, name: str) -> None:
    database = SamDB(url=parameters.samdb_url(), session_info=system_session(parameters), lp=parameters)
    (found,) = database.search(expression=f"(sAMAccountName={name})", attrs=["objectSid"])
    print(ndr_unpack(dom_sid, found["objectSid"][0]))


def main(conf: str, command: str, *arguments: str) -> None:
    parameters = LoadParm()
    parameters.load(conf)
    if command == "provision":
        make_domain(conf, parameters, *arguments)
    elif command == "computer":
        spn, realm, groups, flags = arguments
        add_computer(parameters, spn, realm, int(groups), int(flags))
    elif command == "person":
        add_person(parameters, *arguments)
    elif command == "sid":
        show_sid(parameters, *arguments)
    else:
        spn, path = arguments
        credentials = Credentials()
        credentials.set_kerberos_state(DONT_USE_KERBEROS)
        Net(credentials, parameters).export_keytab(keytab=path, principal=spn)


main(*sys.argv[1:])
