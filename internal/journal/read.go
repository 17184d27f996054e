package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"syscall"
	"time"
)

// Position is a place in a journal. The zero value is the beginning.
type Position struct {
	// File tells the file apart from others that had its name (its inode number), so that a rotated or replaced journal is noticed.
	File uint64 `json:"file,omitempty"`
	// Offset is in bytes.
	Offset int64 `json:"offset,omitempty"`
}

// ErrLost says that the journal no longer holds what followed a position: it was truncated, or replaced and the file before it is
// gone. What changed in between must then be found by comparing both sides.
var ErrLost = errors.New("the journal does not go back to this position")

// Read gives the entries behind a position, until the last complete line. A file that was rotated away once (PATH.1) is read
// first. A journal that does not exist yet is empty. The error of a line that cannot be parsed is given in its place, and reading goes on
// behind it. ErrLost and read errors end the iteration.
func Read(ctx context.Context, path string, from Position) iter.Seq2[Entry, error] {
	return parsed(lines(ctx, path, from))
}

// parsed gives the entry of each line, or what is wrong with it.
func parsed(all iter.Seq2[rawLine, error]) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for l, err := range all {
			var entry Entry
			if err == nil {
				entry, err = parse(l.raw)
				entry.Position = l.end
			}
			if !yield(entry, err) {
				return
			}
		}
	}
}

// rawLine is a complete line of a log, with the position behind it.
type rawLine struct {
	raw []byte
	end Position
}

func lines(ctx context.Context, path string, from Position) iter.Seq2[rawLine, error] {
	return func(yield func(rawLine, error) bool) {
		current, size, err := identify(path)
		if errors.Is(err, fs.ErrNotExist) && from == (Position{}) {
			return
		}
		if err != nil {
			yield(rawLine{}, err)
			return
		}
		if from.File == current || from.File == 0 {
			if from.Offset > size {
				yield(rawLine{}, fmt.Errorf("%s is %d bytes long, asked from %d: %w", path, size, from.Offset, ErrLost))
				return
			}
			readFile(ctx, path, Position{current, from.Offset}, yield)
			return
		}
		rotated := path + ".1"
		before, size, err := identify(rotated)
		if err != nil || before != from.File || from.Offset > size {
			yield(rawLine{}, fmt.Errorf("%s was replaced and %s is not the file before it: %w", path, rotated, ErrLost))
			return
		}
		if readFile(ctx, rotated, from, yield) {
			readFile(ctx, path, Position{File: current}, yield)
		}
	}
}

// End returns the position behind everything written so far.
func End(path string) (Position, error) {
	file, size, err := identify(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Position{}, nil
	}
	return Position{file, size}, err
}

func identify(path string) (inode uint64, size int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, fmt.Errorf("journal: %w", err)
	}
	return info.Sys().(*syscall.Stat_t).Ino, info.Size(), nil
}

// readFile yields the lines of one file and reports whether the caller wants more.
func readFile(ctx context.Context, path string, at Position, yield func(rawLine, error) bool) bool {
	f, err := os.Open(path)
	if err == nil {
		_, err = f.Seek(at.Offset, io.SeekStart)
	}
	if err != nil {
		yield(rawLine{}, fmt.Errorf("journal: %w", err))
		return false
	}
	defer f.Close()
	reader := bufio.NewReaderSize(f, 64<<10)
	for ctx.Err() == nil {
		raw, err := reader.ReadBytes('\n')
		if err == io.EOF {
			return true // what is left of the file is a line that is still being written
		}
		if err != nil {
			yield(rawLine{}, fmt.Errorf("journal: %w", err))
			return false
		}
		at.Offset += int64(len(raw))
		if !yield(rawLine{raw, at}, nil) {
			return false
		}
	}
	yield(rawLine{}, ctx.Err())
	return false
}

// Follow gives the entries behind a position and then every new one, looking again each interval, until ctx ends. A journal that lost its
// position is followed again from its present beginning, after the error has been given.
func Follow(ctx context.Context, path string, from Position, interval time.Duration) iter.Seq2[Entry, error] {
	return parsed(follow(ctx, path, from, interval))
}

// FollowLines is Follow for a log of another format.
func FollowLines(ctx context.Context, path string, from Position, interval time.Duration) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for l, err := range follow(ctx, path, from, interval) {
			if !yield(l.raw, err) {
				return
			}
		}
	}
}

func follow(ctx context.Context, path string, from Position, interval time.Duration) iter.Seq2[rawLine, error] {
	return func(yield func(rawLine, error) bool) {
		for {
			wait := interval
			for l, err := range lines(ctx, path, from) {
				switch {
				case ctx.Err() != nil:
					return
				case err == nil:
					from = l.end
				default:
					wait = max(interval, time.Second) // a log that cannot be read is not asked about all the time
					if errors.Is(err, ErrLost) {
						from = Position{}
					}
				}
				if !yield(l, err) {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	}
}
