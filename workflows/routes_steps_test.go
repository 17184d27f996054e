package workflows

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/routing"
)

// What Routes decides is in internal/routing/steps.go once more, in a form that the model of the cutover (internal/edge/model_test.go) can run a hundred thousand times.
// Both must hand out the same tables, whatever is asked in whichever order and whichever edge refuses.
func TestRoutesDecidesAsTheModelDoes(t *testing.T) {
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 1))
		edges := three[:1+random.IntN(3)]
		refuses := map[string]bool{} // "edge generation"
		for range random.IntN(3) {
			refuses[fmt.Sprint(edges[random.IntN(len(edges))], 2+random.Int64N(8))] = true
		}
		s := &site{t: t}
		var handed, want []string
		s.fail = func(name string, table routing.Table) error {
			r, _ := table.Lookup("restricted")
			if name == edges[0] && r.Owner != "" { // a table is handed to all edges; what one of them gets is enough
				handed = append(handed, fmt.Sprint(table.Generation, r.Mode, r.Backend, r.Hold))
			}
			if refuses[fmt.Sprint(name, table.Generation)] {
				return final(routing.RefusedHoldLost)
			}
			return nil
		}
		model := routing.Table{Generation: 0, Default: "old", Routes: []routing.Route{{Prefix: "restricted", Backend: "old", Other: "new", Mode: routing.Open, Owner: "m"}}}
		take := func(steps routing.Steps) {
			for _, r := range steps.Routes {
				model = model.With(r)
				want = append(want, fmt.Sprint(model.Generation, r.Mode, r.Backend, r.Hold))
				if steps.Back != nil && slices.ContainsFunc(edges, func(name string) bool { return refuses[fmt.Sprint(name, model.Generation)] }) {
					for _, back := range steps.Undo(r) {
						model = model.With(back)
						want = append(want, fmt.Sprint(model.Generation, back.Mode, back.Backend, back.Hold))
					}
					return
				}
			}
		}
		q := claimOf("restricted", "m")
		q.Edges = edges
		_, claim := s.ask(routing.UpdateClaim, q)
		_, watch := s.ask(routing.UpdateWatch, q)
		model = model.With(routing.Route{Prefix: "restricted", Backend: "old", Other: "new", Mode: routing.Watched, Owner: "m"})
		want = append(want, fmt.Sprint(model.Generation, routing.Watched, "old", ""))
		steps := []func(){claim, watch}
		for range 3 + random.IntN(12) {
			q.Hold = fmt.Sprintf("h%d", 1+random.IntN(2))
			q.Lease = time.Minute
			switch q := q; random.IntN(4) {
			case 0:
				_, step := s.ask(routing.UpdateHold, q)
				steps = append(steps, step)
				if plan, err := model.HoldSteps(q); err == nil {
					take(plan)
				}
			case 1:
				_, step := s.ask(routing.UpdateFlip, q)
				steps = append(steps, step)
				if plan, err := model.FlipSteps(q); err == nil {
					take(plan)
				}
			case 2:
				_, step := s.ask(routing.UpdateRelease, q)
				steps = append(steps, step)
				take(model.ReleaseSteps(q))
			case 3:
				steps = append(steps, func() {
					s.env.SignalWorkflow(routing.SignalEdgeAsks, routing.EdgeAsks{Edge: edges[0], Table: s.table().Table, RanOut: q.Hold})
				})
				take(model.RanOutSteps(q.Hold))
			}
		}
		_ = s.run(routing.Routing{}, steps...)
		s.mu.Lock() // an activity may outlast its workflow
		got := slices.Compact(handed)
		s.mu.Unlock()
		require.Equal(t, want, got, "seed %d: internal/routing/steps.go and workflows/routes.go disagree", seed)
	}
}
