package dnsd

import (
	"net"
	"sync"
)

// links tells by which interface of the host a packet came in. Records have its
// index and its name; a bridge that was made again has another index.
type links struct {
	mu    sync.Mutex
	names map[int]string
}

// is reports whether the interface with the index is the attachment's; 0 is taken
// for it.
func (l *links) is(index int, e *entry) bool {
	if index == 0 || index == e.Index {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if name, known := l.names[index]; known {
		return name == e.Link
	}
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return false
	}
	l.names[index] = i.Name
	return i.Name == e.Link
}

// forget has interfaces looked up again: at each change of the records.
func (l *links) forget() {
	l.mu.Lock()
	clear(l.names)
	l.mu.Unlock()
}
