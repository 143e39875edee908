package main
import ("encoding/binary";"fmt";"runtime";"github.com/netcleat/netcleat/pkg/nl")
func main() {
	info := nl.FilterInfo(1, 3 /* ETH_P_ALL */); b := make([]byte, 2)
	binary.NativeEndian.PutUint16(b, uint16(info&0xffff)) // tcm_info's low half is a __be16
	fmt.Printf("%s: the kernel reads protocol %#04x, want 0x0003\n", runtime.GOARCH, binary.BigEndian.Uint16(b))
}
