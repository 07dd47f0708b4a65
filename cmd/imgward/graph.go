// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/graph"
)

func newGraph() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "graph [--format tree|dot|svg] [DIR]",
		Short: "Show backing chains, and who uses them",
		Long:  "Show the images in use and their backing files: as a tree, as a drawing (svg),\nor for graphviz (dot).\n" + exitHelp,
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			views, err := someViews(args)
			if err != nil {
				return err
			}
			images, err := inUse(cmd.Context(), views)
			if err != nil {
				return err
			}
			graph.Link(cmd.Context(), images)
			switch format {
			case "tree":
				if len(images) == 0 {
					_, err := fmt.Fprintln(cmd.OutOrStdout(), "no image is in use")
					return err
				}
				return graph.Tree(cmd.OutOrStdout(), images, shown)
			case "dot":
				return graph.DOT(cmd.OutOrStdout(), images)
			case "svg":
				return graph.SVG(cmd.OutOrStdout(), images)
			}
			return usageError{fmt.Errorf("unknown format %q: tree, dot or svg", format)}
		},
	}
	c.Flags().StringVar(&format, "format", "tree", "tree, dot or svg")
	return c
}

// inUse are the images in use below views.
func inUse(ctx context.Context, views []string) ([]*graph.Image, error) {
	var list []*graph.Image
	for _, v := range views {
		err := control.Dial(v).Get(ctx, "status", nil, func(line []byte) error {
			var img control.Image
			if err := json.Unmarshal(line, &img); err != nil || img.Type != "image" || img.Path == "" {
				return err
			}
			n := &graph.Image{Path: filepath.Join(v, img.Path)}
			for _, u := range img.Uses {
				n.Users = append(n.Users, describeUse(u))
			}
			list = append(list, n)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}
