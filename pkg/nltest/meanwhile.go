package nltest

import (
	"context"
	"sync"
)

// Meanwhile returns a context that runs fn when somebody first waits with it,
// such as for a lock: what another process does just then.
func Meanwhile(ctx context.Context, fn func()) context.Context {
	return meanwhile{ctx, sync.OnceFunc(fn)}
}

type meanwhile struct {
	context.Context
	fn func()
}

func (m meanwhile) Done() <-chan struct{} {
	m.fn()
	return m.Context.Done()
}
