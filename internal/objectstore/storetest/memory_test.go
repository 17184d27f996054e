package storetest_test

import (
	"testing"

	"transship/internal/objectstore"
	"transship/internal/objectstore/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) objectstore.Store { return &storetest.Memory{} })
}
