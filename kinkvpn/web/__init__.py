"""The status page, and who may have it: files as they are sent, without a build step."""
