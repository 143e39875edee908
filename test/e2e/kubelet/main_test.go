package kubelet

import (
	"os"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/tried"
)

func TestMain(m *testing.M) { os.Exit(tried.Main(m, "kubelet")) }
