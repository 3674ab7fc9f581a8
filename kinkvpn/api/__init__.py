"""The local API: HTTP and JSON over a Unix socket, described by OpenAPI. The command line is a client of it."""
