package main

// version is set by the linker: -ldflags "-X main.version=…".
var version = "unknown"
