"""What KINK needs of Kerberos (RFC 4120), over MIT libkrb5 and gssapi, and a fake realm for simulation."""
