package main

import (
	"errors"
	"net"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bitw/config"
)

// flagError says what is wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	var (
		invalid *pflag.InvalidValueError
		unknown *pflag.NotExistError
	)
	switch {
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		what := map[string]string{"duration": "a time such as 10s or 5m", "int": "a number", "uint64": "a number, not below 0", "bool": "true or false"}[f.Value.Type()]
		return usagef("--%s is %s, not %q", f.Name, what, invalid.GetValue())
	case errors.As(err, &unknown):
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := config.Nearest(unknown.GetSpecifiedName(), names); near != "" {
			return usagef("%w, did you mean --%s?", err, near)
		}
	}
	return usageError{err}
}

// subVerbs are the verbs that may follow cmd.
func subVerbs(cmd *cobra.Command) (names []string) {
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	return names
}

// onlySubVerbs has cmd do nothing by itself.
func onlySubVerbs(cmd *cobra.Command) {
	names := strings.Join(subVerbs(cmd), ", ")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("%s is followed by one of %s, not %q%s", cmd.Name(), names, args[0], nearVerb(cmd, args[0]))
		}
		return usagef("%s is followed by one of %s", cmd.Name(), names)
	}
	cmd.RunE = func(*cobra.Command, []string) error { return nil } // Args lets none come here
}

// nearVerb is a question with the verb below cmd that may be meant.
func nearVerb(cmd *cobra.Command, word string) string {
	if near := config.Nearest(word, subVerbs(cmd)); near != "" {
		return ", did you mean " + near + "?"
	}
	return ""
}

// ownVerbs has cobra's own verbs, help and completion, refuse what they do not know.
func ownVerbs(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				found, rest, err := root.Find(args)
				if err == nil && (len(rest) == 0 || !found.HasSubCommands()) {
					return nil
				}
				return usagef("there is no help about %q%s", strings.Join(args, " "), nearVerb(found, rest[0]))
			}
		case "completion":
			onlySubVerbs(cmd)
			for _, shell := range cmd.Commands() {
				shell.Args = exactly()
			}
		}
	}
}

// completeInterface completes the name of an interface of this machine as the first argument.
func completeInterface(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	list, _ := net.Interfaces() // without them nothing is completed
	for _, i := range list {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
