package objectstore

import "fmt"

// SizeError says that a body ended before the size that was announced for it, or went on after it.
type SizeError struct {
	Key       string
	Announced int64
	// Read is how many bytes came; of a body that went on, one more than announced.
	Read int64
}

func (e *SizeError) Error() string {
	if e.Read > e.Announced {
		return fmt.Sprintf("%s: more than the announced %d bytes came", e.Key, e.Announced)
	}
	return fmt.Sprintf("%s: %d bytes came, announced were %d", e.Key, e.Read, e.Announced)
}
