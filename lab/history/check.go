package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Final is what both backends hold when everything is over, read from each directly.
type Final struct {
	At time.Time
	// Serves is the backend to which the edges send clients.
	Serves string
	// Backends have, by name, what each repository:tag refers to.
	Backends map[string]Contents
}

// Contents are a backend's tags.
type Contents struct {
	Tags map[string]string
	// Broken are tags of which not everything could be pulled, with the reason.
	Broken map[string]string
}

// Anomaly is a promise that was broken.
type Anomaly struct {
	What   string
	Tag    string
	Detail string
}

func (a Anomaly) String() string { return fmt.Sprintf("%s: %s: %s", a.What, a.Tag, a.Detail) }

// What can be wrong.
const (
	Lost       = "acknowledged, and not there"
	Broke      = "cannot be pulled whole"
	Stale      = "older than what was acknowledged"
	Invented   = "never pushed"
	Undeleted  = "deleted, and there again"
	WrongBytes = "content does not hash to its digest"
	Refused    = "failed"
)

// Check finds every promise that was broken. What a tag refers to must be a linearizable register: there is an order of all pushes, deletions and pulls of it, in which each takes
// effect between its begin and its end, and each pull sees the write before it. A history in which a tag is given the same digest twice, or is deleted twice, cannot be judged.
//
// Pushes with a failed or unknown outcome may have taken effect or not. The serving backend's final state counts as a pull of every tag at the end.
func Check(all []Operation, final Final) ([]Anomaly, error) {
	var found []Anomaly
	serving, known := final.Backends[final.Serves]
	if !known {
		return nil, fmt.Errorf("history: there is no final state of %q, which serves", final.Serves)
	}
	tags := map[string][]Operation{}
	for _, o := range all {
		if o.Wrong {
			found = append(found, Anomaly{WrongBytes, o.name(), o.String()})
		}
		if (o.Outcome == Failed || o.Outcome == Unknown) && o.Excuse == "" {
			found = append(found, Anomaly{Refused, o.name(), o.String()})
		}
		if o.Tag != "" && (o.Kind == PushTag || o.Kind == PullTag || o.Kind == Delete) {
			tags[o.name()] = append(tags[o.name()], o)
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		last := Operation{Client: "the end", Kind: PullTag, Began: final.At, Ended: final.At, Digest: serving.Tags[tag], Outcome: OK, Detail: "at " + final.Serves}
		if last.Digest == "" {
			last.Outcome = Absent
			for name, other := range final.Backends {
				if d := other.Tags[tag]; d != "" {
					last.Detail += "; " + name + " has " + d
				}
			}
		}
		if why := serving.Broken[tag]; why != "" {
			found = append(found, Anomaly{Broke, tag, why})
		}
		wrong, err := register(tag, append(tags[tag], last))
		if err != nil {
			return nil, err
		}
		found = append(found, wrong...)
	}
	return found, nil
}

// absent and deleted are values of a tag that refers to nothing.
const (
	absent  = "nothing yet"
	deleted = "deleted"
)

// zone is a value of a register with its write and all its reads. With every value written once, a register is linearizable if and only if no read ends before its write begins, no
// two forward zones overlap, and no backward zone lies within a forward one (Gibbons and Korach, Testing Shared Memories, SIAM J. Comput. 26(4), 1997, section 4).
type zone struct {
	value string
	write Operation
	// minEnd is when the first operation ended, maxBegin when the last one began.
	minEnd, maxBegin    time.Time
	earliest, lastBegan Operation
}

func (z *zone) forward() bool { return z.minEnd.Before(z.maxBegin) }

func (z *zone) from() time.Time {
	if z.forward() {
		return z.minEnd
	}
	return z.maxBegin
}

func (z *zone) to() time.Time {
	if z.forward() {
		return z.maxBegin
	}
	return z.minEnd
}

func (z *zone) add(o Operation, ended time.Time) {
	if z.minEnd.IsZero() || ended.Before(z.minEnd) {
		z.minEnd, z.earliest = ended, o
	}
	if z.maxBegin.IsZero() || o.Began.After(z.maxBegin) {
		z.maxBegin, z.lastBegan = o.Began, o
	}
}

// never is the end of what nobody saw end.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func register(tag string, all []Operation) (found []Anomaly, err error) {
	start := Operation{Client: "before", Kind: PushTag, Began: time.Unix(0, 0), Ended: time.Unix(0, 1), Outcome: OK}
	zones := map[string]*zone{absent: {value: absent, write: start}}
	zones[absent].add(start, start.Ended)
	acknowledged := map[string]bool{absent: true}
	for _, o := range all {
		value := o.Digest
		switch o.Kind {
		case PullTag:
			continue
		case Delete:
			value = deleted
		}
		if zones[value] != nil {
			return nil, fmt.Errorf("history: %s is %s twice: its pulls cannot be told apart", tag, value)
		}
		ended := o.Ended
		if acknowledged[value] = o.Outcome == OK; !acknowledged[value] {
			ended = never
		}
		zones[value] = &zone{value: value, write: o}
		zones[value].add(o, ended)
	}
	read := map[string]bool{}
	for _, o := range all {
		if o.Kind != PullTag || o.Outcome != OK && o.Outcome != Absent {
			continue
		}
		value := o.Digest
		if o.Outcome == Absent {
			value = absent
			if z := zones[deleted]; z != nil && z.write.Began.Before(o.Ended) {
				value = deleted
			}
		}
		z := zones[value]
		if z == nil || !z.write.Began.Before(o.Ended) && value != absent {
			found = append(found, Anomaly{Invented, tag, o.String()})
			continue
		}
		read[value] = true
		z.add(o, o.Ended)
	}
	var list []*zone
	for value, z := range zones {
		if acknowledged[value] || read[value] { // what was neither need never have happened
			list = append(list, z)
		}
	}
	slices.SortFunc(list, func(a, b *zone) int {
		return cmp.Or(a.from().Compare(b.from()), a.to().Compare(b.to()), cmp.Compare(a.value, b.value))
	})
	for i, a := range list {
		for _, b := range list[i+1:] {
			clash := a.forward() && b.forward() && b.from().Before(a.to()) || a.forward() && !b.forward() && b.to().Before(a.to()) ||
				b.forward() && !a.forward() && b.from().Before(a.from()) && a.to().Before(b.to())
			if clash {
				found = append(found, judge(tag, a, b))
			}
		}
	}
	return found, nil
}

// judge says in words what is wrong with two values of which neither can have come first.
func judge(tag string, a, b *zone) Anomaly {
	older, newer := a, b
	if b.write.Began.Before(a.write.Began) {
		older, newer = b, a
	}
	what := Stale
	switch seen := older.lastBegan; {
	case newer.value == deleted:
		what = Undeleted
	case older.value == absent && seen.Outcome == Absent, older.value == deleted && seen.Outcome == Absent:
		what = Lost
	}
	return Anomaly{what, tag, fmt.Sprintf("%s, after %s (%s)", older.lastBegan, newer.earliest, newer.write)}
}
