package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"transship/internal/report"
)

// every is the time between two looks.
const every = time.Second

// watch follows a migration until it ends, over its worker's and Temporal's restarts. An empty run is the latest.
func (a *app) watch(ctx context.Context, d *desk, id, run string) error {
	show := a.display()
	e := &estimator{}
	d.timeout = min(d.timeout, 10*time.Second)
	var last view
	for {
		v, err := d.look(ctx, id, run, e)
		var known *failure
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("no longer watching; the migration goes on: %w", ctx.Err())
		case errors.As(err, &known):
			return err
		case err != nil && last.Workflow == "":
			return err
		case err != nil:
			v = last
			v.Trouble = err.Error()
		default:
			// From now on this run is meant, and what continues it, even if another migration of the prefix begins.
			last, run = v, v.Run
		}
		if err := show(v); err != nil {
			return err
		}
		if v.Over {
			if v.Report.Outcome != report.Finalized {
				return trouble("the migration of %s ended: %s", v.Report.Prefix, ending(v.Report))
			}
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}

// display is how a watched migration is shown: redrawn in place on a terminal, a line for each change elsewhere, a JSON line to programs.
func (a *app) display() func(view) error {
	if a.output == outputJSON {
		return jsonLines(a.stdout)
	}
	if f, ok := a.stdout.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "" && os.Getenv("TERM") != "dumb" {
			return redraw(f)
		}
	}
	c := &changes{w: a.stdout}
	return c.show
}

func jsonLines(w io.Writer) func(view) error {
	var last []byte
	return func(v view) error {
		var line bytes.Buffer
		e := json.NewEncoder(&line)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return err
		}
		if bytes.Equal(line.Bytes(), last) {
			return nil
		}
		last = line.Bytes()
		_, err := w.Write(last)
		return err
	}
}

func redraw(w io.Writer) func(view) error {
	lines := 0
	return func(v view) error {
		var b bytes.Buffer
		if err := v.write(&b); err != nil {
			return err
		}
		// Lines that wrap would make the count wrong: while it is redrawn they are cut, and the last drawing is whole.
		wrap, unwrap := "\x1b[?7l", "\x1b[?7h"
		if v.Over {
			wrap = unwrap
		}
		up := ""
		if lines > 0 {
			up = fmt.Sprintf("\x1b[%dA\r\x1b[J", lines)
		}
		lines = bytes.Count(b.Bytes(), []byte("\n"))
		_, err := fmt.Fprint(w, up, wrap, b.String(), unwrap)
		return err
	}
}
