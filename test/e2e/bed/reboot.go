package bed

// killAll kills every process but those that hold the namespaces, a shell and its
// cat, and names what it has killed.
const killAll = `
for p in /proc/[0-9]*; do
	p=${p#/proc/}
	read -r name </proc/$p/comm || continue
	if [ $p != 1 ] && [ $p != $$ ] && [ "$name" != cat ]; then
		kill -9 $p && echo $p $name
	fi
done 2>/dev/null
true`

// Reboot has the host go through what a boot changes: no process, link, rule and
// file in /run of before is left, and the kernel names another boot. Whoever calls
// it starts the runtime again. Bridges are named, which the shutdown would remove.
func (h *Host) Reboot(bridges ...string) {
	h.t.Helper()
	h.Wait("all processes have ended", func() bool {
		out, err := h.Try("sh", "-c", killAll)
		return err == nil && out == ""
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
