module github.com/netcleat/netcleat

go 1.26.0

require (
	github.com/containernetworking/cni v1.3.0
	github.com/google/go-cmp v0.7.0
	golang.org/x/sys v0.49.0
)
