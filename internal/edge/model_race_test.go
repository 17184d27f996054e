//go:build race

package edge

// raced: the race detector makes the model, which has nothing to race, ten times slower.
const raced = true
