// Package systemd has the units of the operator's command, for netcleat install
// --enable. A service NAME is the files netcleat-NAME.service and .socket, and
// netcleat-NAME-*.service.
package systemd

import "embed"

// Units are the files.
//
//go:embed *.service *.socket
var Units embed.FS

// Command is the path that the units have for the operator's command.
const Command = "/usr/local/bin/netcleat"
