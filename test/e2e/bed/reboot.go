package bed

// Reboot has the host go through what a boot changes: no process, link, rule and
// file in /run of before is left, and the kernel names another boot. Whoever calls
// it starts the runtime again. Bridges are named, which the shutdown would remove.
func (h *Host) Reboot(bridges ...string) {
	h.t.Helper()
	_, _ = h.Try("sh", "-c", "kill -9 -1") // all but the first process, which holds the namespaces
	h.Wait("all processes have ended", func() bool {
		out, _ := h.Try("sh", "-c", `for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = 1 ] || [ $p = $$ ] || echo $p; done`)
		return out == ""
	})
	for _, bridge := range bridges {
		h.Run("ip", "link", "del", bridge)
	}
	h.Sh(`
		nft flush ruleset
		grep -o ' /run/[^ ]*' /proc/mounts | grep -v -e '/run/netns$' -e '/run/netns/lan$' -e '/run/etc$' | sort -r | xargs -r -n1 umount -l
		find /run -mindepth 1 -maxdepth 1 ! -name netns ! -name lock ! -name etc -exec rm -rf {} +
		find /run/netns -mindepth 1 ! -name lan -delete
		cat /proc/sys/kernel/random/uuid >` + h.Dir + `/boot_id
		mount --bind ` + h.Dir + `/boot_id /proc/sys/kernel/random/boot_id`)
}
