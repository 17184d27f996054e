package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/temporal"
)

func TestClassify(t *testing.T) {
	a := &app{begun: true}
	for _, c := range []struct {
		err  error
		code int
		kind string
	}{
		{errors.New("what"), exitUnexpected, "unexpected"},
		{fmt.Errorf("around: %w", badInput(errors.New("x"))), exitUsage, "usage"},
		{refused("no"), exitRefused, "refused"},
		{temporal.NewApplicationError("no", "Command"), exitRefused, "refused"},
		{fmt.Errorf("list: %w", serviceerror.NewUnavailable("gone")), exitUnreachable, "unreachable"},
		{fmt.Errorf("list: %w", context.DeadlineExceeded), exitUnreachable, "unreachable"},
		{serviceerror.NewDeadlineExceeded("late"), exitUnreachable, "unreachable"},
		{serviceerror.NewNamespaceNotFound("nope"), exitUsage, "usage"},
		{trouble("rolled back"), exitTrouble, "trouble"},
		{context.Canceled, exitUnexpected, "unexpected"},
	} {
		f := a.classify(c.err)
		assert.Equal(t, c.code, f.code, c.err)
		assert.Equal(t, c.kind, f.kind(), c.err)
	}
	assert.Equal(t, exitUsage, (&app{}).classify(errors.New("unknown flag")).code, "before a verb begins")
}

func TestARefusalIsPrintedWithoutTheMachinery(t *testing.T) {
	f := (&app{begun: true}).classify(temporal.NewApplicationError("the window is closed", "Command"))
	assert.Equal(t, "the window is closed", f.Error())
}
