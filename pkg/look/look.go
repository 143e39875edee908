// Package look lets checks of many attachments share what they read of the host: what all
// of them need, such as the rules of a table, is read once and not for each attachment.
package look

import (
	"context"
	"sync"
)

// Look is what has been read. A nil Look reads each time.
type Look struct {
	mu   sync.Mutex
	read map[any]func() (any, error)
}

type key struct{}

// New returns a Look that has read nothing.
func New() *Look { return &Look{read: map[any]func() (any, error){}} }

// Share returns a context whose checks share one Look. What was read may have changed since:
// what such a check finds missing has to be looked at again before anything is done.
func Share(ctx context.Context) context.Context {
	return context.WithValue(ctx, key{}, New())
}

// Alone returns a context whose checks read everything themselves.
func Alone(ctx context.Context) context.Context {
	return context.WithValue(ctx, key{}, (*Look)(nil))
}

// Of returns the Look that ctx shares, or nil.
func Of(ctx context.Context) *Look {
	l, _ := ctx.Value(key{}).(*Look)
	return l
}

// Once returns what read returns. With a Look it is called once for what is read, which names
// it; callers must not change what they get.
func Once[T any](l *Look, what any, read func() (T, error)) (T, error) {
	if l == nil {
		return read()
	}
	l.mu.Lock()
	once := l.read[what]
	if once == nil {
		once = sync.OnceValues(func() (any, error) { return read() })
		l.read[what] = once
	}
	l.mu.Unlock()
	v, err := once()
	t, _ := v.(T) // a nil interface is the zero value
	return t, err
}
