// Package storetest has what tests of object stores and of their users need: the conformance suite that every store passes, and a store in memory.
package storetest
