"""The libyuv functions that this plugin uses, in C for cffi. All exist since version 1719 (October 2018)."""

from __future__ import annotations

from typing import Final

BILINEAR: Final = 2
"""kFilterBilinear of enum FilterMode."""

DECLARATIONS: Final = """
int NV12ToI420(const uint8_t *src_y, int src_stride_y, const uint8_t *src_uv, int src_stride_uv,
               uint8_t *dst_y, int dst_stride_y, uint8_t *dst_u, int dst_stride_u, uint8_t *dst_v, int dst_stride_v,
               int width, int height);
int NV12ToRAW(const uint8_t *src_y, int src_stride_y, const uint8_t *src_uv, int src_stride_uv,
              uint8_t *dst_raw, int dst_stride_raw, int width, int height);
int NV12ToARGB(const uint8_t *src_y, int src_stride_y, const uint8_t *src_uv, int src_stride_uv,
               uint8_t *dst_argb, int dst_stride_argb, int width, int height);
int I420ToNV12(const uint8_t *src_y, int src_stride_y, const uint8_t *src_u, int src_stride_u,
               const uint8_t *src_v, int src_stride_v, uint8_t *dst_y, int dst_stride_y,
               uint8_t *dst_uv, int dst_stride_uv, int width, int height);
int I420ToRAW(const uint8_t *src_y, int src_stride_y, const uint8_t *src_u, int src_stride_u,
              const uint8_t *src_v, int src_stride_v, uint8_t *dst_raw, int dst_stride_raw, int width, int height);
int RAWToI420(const uint8_t *src_raw, int src_stride_raw, uint8_t *dst_y, int dst_stride_y,
              uint8_t *dst_u, int dst_stride_u, uint8_t *dst_v, int dst_stride_v, int width, int height);
int RAWToARGB(const uint8_t *src_raw, int src_stride_raw, uint8_t *dst_argb, int dst_stride_argb,
              int width, int height);
int ARGBToRAW(const uint8_t *src_argb, int src_stride_argb, uint8_t *dst_raw, int dst_stride_raw,
              int width, int height);
void SplitRGBPlane(const uint8_t *src_rgb, int src_stride_rgb, uint8_t *dst_r, int dst_stride_r,
                   uint8_t *dst_g, int dst_stride_g, uint8_t *dst_b, int dst_stride_b, int width, int height);
void MergeRGBPlane(const uint8_t *src_r, int src_stride_r, const uint8_t *src_g, int src_stride_g,
                   const uint8_t *src_b, int src_stride_b, uint8_t *dst_rgb, int dst_stride_rgb,
                   int width, int height);
void CopyPlane(const uint8_t *src, int src_stride, uint8_t *dst, int dst_stride, int width, int height);
int I420Scale(const uint8_t *src_y, int src_stride_y, const uint8_t *src_u, int src_stride_u,
              const uint8_t *src_v, int src_stride_v, int src_width, int src_height,
              uint8_t *dst_y, int dst_stride_y, uint8_t *dst_u, int dst_stride_u, uint8_t *dst_v, int dst_stride_v,
              int dst_width, int dst_height, int filtering);
int ARGBScale(const uint8_t *src_argb, int src_stride_argb, int src_width, int src_height,
              uint8_t *dst_argb, int dst_stride_argb, int dst_width, int dst_height, int filtering);
"""
