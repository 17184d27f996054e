package main

import (
	"strings"

	"github.com/spf13/cobra"

	"transship/config"
)

// completePrefix offers the prefixes of the configuration.
func (a *app) completePrefix(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := a.load(config.IgnoreSecrets)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, p := range c.Prefixes {
		if strings.HasPrefix(p.Prefix, typed) {
			names = append(names, p.Prefix)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// backendFlags are --from and --to, which offer the backends of the configuration.
func (a *app) backendFlags(c *cobra.Command, from, to *string) {
	c.Flags().StringVar(from, "from", "", "`BACKEND` that serves the prefix now")
	c.Flags().StringVar(to, "to", "", "`BACKEND` to move it to")
	for _, flag := range []string{"from", "to"} {
		if err := c.RegisterFlagCompletionFunc(flag, a.completeBackend); err != nil {
			panic(err) // the flag is declared above
		}
	}
}

// completeBackend offers the backends of the configuration.
func (a *app) completeBackend(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	c, err := a.load(config.IgnoreSecrets)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.BackendNames(), cobra.ShellCompDirectiveNoFileComp
}

// fixed offers the values of a flag that takes few.
func fixed(c *cobra.Command, flag string, values ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the caller declared the flag
	}
}
