package evidence

import "github.com/netcleat/netcleat/pkg/shell"

// Forget is the command that removes what is left of an owner by the user's
// decision. Whatever is kept because its owner is unknown is named with it.
func Forget(network, containerID string) string {
	return "netcleat forget " + shell.Quote(network) + " " + shell.Quote(containerID) + " --force"
}
