package lease

// KeptBy reports whether an IPAM plugin keeps its leases here: host-local, and
// cluster-local, which is host-local within the blocks of its host.
func KeptBy(plugin string) bool { return plugin == "host-local" || plugin == "cluster-local" }
