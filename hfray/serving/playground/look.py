"""Colours, type and corners. Knows Gradio's themes; the rest of the look is in style.css."""

from __future__ import annotations

from typing import Any

from gradio.themes import Base, Color

INK = Color("#fafafa", "#f4f4f5", "#e8e8ea", "#d8d8dc", "#a4a4aa", "#6b6b70", "#4e4e53", "#3a3a3e", "#26262a",
            "#1c1c1f", "#161618")  # fmt: skip
BLUE = Color("#eef3ff", "#dde7ff", "#c2d3ff", "#9db8ff", "#7ea2ff", "#2457d6", "#1f4bb8", "#1a3f9a", "#15327b",
             "#10265c", "#0b1a40")  # fmt: skip


def look() -> Any:
    """One theme for light and dark, with the fonts that the reader's system has."""
    theme = Base(
        primary_hue=BLUE,
        secondary_hue=BLUE,
        neutral_hue=INK,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    plain = {
        "body_background_fill": "#ffffff",
        "body_background_fill_dark": "*neutral_950",
        "block_background_fill": "transparent",
        "block_background_fill_dark": "transparent",
        "block_border_width": "0px",
        "block_shadow": "none",
        "block_padding": "0px",
        "border_color_primary": "*neutral_200",
        "border_color_primary_dark": "*neutral_700",
        "block_label_text_color": "*neutral_500",
        "block_label_text_color_dark": "*neutral_400",
        "block_title_text_color": "*neutral_500",
        "block_title_text_color_dark": "*neutral_400",
        "block_title_text_weight": "400",
        "input_background_fill": "#ffffff",
        "input_background_fill_dark": "*neutral_950",
        "input_border_width": "1px",
        "input_border_color": "*neutral_300",
        "input_border_color_dark": "*neutral_700",
        "input_shadow": "none",
        "button_primary_background_fill": "*primary_500",
        "button_primary_background_fill_dark": "*primary_400",
        "button_primary_background_fill_hover": "*primary_600",
        "button_primary_background_fill_hover_dark": "*primary_300",
        "button_primary_text_color": "#ffffff",
        "button_primary_text_color_dark": "*neutral_950",
        "button_secondary_background_fill": "transparent",
        "button_secondary_background_fill_dark": "transparent",
        "button_secondary_border_color": "*neutral_300",
        "button_secondary_border_color_dark": "*neutral_700",
        "layout_gap": "14px",
    }
    return theme.set(**plain)
